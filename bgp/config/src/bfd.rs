// SPDX-License-Identifier: Apache-2.0
//! `BFDProfile` objects: what they say, and who uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

use bgp_bfd::profile::{Auth, AuthType, Echo, Interval, Profile};
use router_resources::kinds::{BfdAuthType, BfdAuthentication, BfdEcho, BfdProfileSpec};
use router_resources::{ObjectKey, Snapshot, Statement};

use crate::statements::{Statements, condition_type};

/// The profiles, and who uses them.
pub(crate) struct BfdProfiles {
    read: BTreeMap<String, (ObjectKey, Result<Profile, String>)>,
    users: BTreeMap<String, BTreeSet<String>>,
}

impl BfdProfiles {
    /// Reads all of them; keys are in Secrets of a namespace.
    pub(crate) fn new(
        snapshot: &Snapshot,
        secrets_namespace: &str,
        other_users: &[(String, String)],
    ) -> BfdProfiles {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (profile, user) in other_users {
            let users = users.entry(profile.clone()).or_default();
            users.insert(user.clone());
        }
        BfdProfiles {
            read: snapshot
                .bfd_profiles()
                .map(|entry| {
                    let profile = profile(entry.spec, snapshot, secrets_namespace);
                    (entry.name().to_owned(), (entry.key(), profile))
                })
                .collect(),
            users,
        }
    }

    /// The profile a peer names.
    ///
    /// # Errors
    /// There is no such profile, or it cannot be used: in words.
    pub(crate) fn named(&mut self, name: &str, user: &str) -> Result<Profile, String> {
        let (_, profile) = self
            .read
            .get(name)
            .ok_or_else(|| format!("BFDProfile/{name} does not exist"))?;
        let users = self.users.entry(name.to_owned()).or_default();
        users.insert(user.to_owned());
        profile
            .clone()
            .map_err(|error| format!("BFDProfile/{name} cannot be used: {error}"))
    }

    /// Says of each profile whether it is used.
    pub(crate) fn conclude(&self, statements: &mut Statements) {
        for (name, (key, profile)) in &self.read {
            if let Err(error) = profile {
                statements.problem(key, condition_type::DEGRADED, "CannotBeUsed", error);
            }
            let statement = match self.users.get(name) {
                Some(users) => {
                    let users: Vec<&str> = users.iter().map(String::as_str).collect();
                    let message = format!("used by {}", users.join(", "));
                    Statement::is_true(condition_type::IN_USE, "Referenced", message)
                }
                None => {
                    let message = "no peer or egress policy of this node names it in bfdProfileRef";
                    Statement::is_false(condition_type::IN_USE, "NotReferenced", message)
                }
            };
            statements.otherwise(key, statement);
        }
    }
}

/// The BFDProfile of a name, for sessions that are not beside a BGP session.
///
/// # Errors
/// There is no such profile, or it cannot be used: in words.
pub fn bfd_profile(
    name: &str,
    snapshot: &Snapshot,
    secrets_namespace: &str,
) -> Result<Profile, String> {
    let entry = snapshot.bfd_profile(name);
    let entry = entry.ok_or_else(|| format!("BFDProfile/{name} does not exist"))?;
    profile(entry.spec, snapshot, secrets_namespace)
        .map_err(|error| format!("BFDProfile/{name} cannot be used: {error}"))
}

fn profile(
    spec: &BfdProfileSpec,
    snapshot: &Snapshot,
    secrets_namespace: &str,
) -> Result<Profile, String> {
    let interval = |field: &str, ms: i32| {
        Interval::from_ms(u64::try_from(ms).unwrap_or(0))
            .map_err(|error| format!("{field}: {error}"))
    };
    let multiplier = u8::try_from(spec.detect_multiplier)
        .ok()
        .and_then(NonZeroU8::new)
        .ok_or("detectMultiplier is not between 1 and 255")?;
    if spec.echo == Some(BfdEcho::default()) {
        return Err(
            "echo says nothing: give it transmitIntervalMilliseconds to send echo packets, \
             receiveIntervalMilliseconds to return the peer's, or both"
                .to_owned(),
        );
    }
    let echo = match &spec.echo {
        None => Echo::default(),
        Some(echo) => Echo {
            transmit: echo
                .transmit_interval_milliseconds
                .map(|ms| interval("echo.transmitIntervalMilliseconds", ms))
                .transpose()?,
            receive: echo
                .receive_interval_milliseconds
                .map(|ms| interval("echo.receiveIntervalMilliseconds", ms))
                .transpose()?,
        },
    };
    let auth = spec
        .authentication
        .as_ref()
        .map(|auth| authentication(auth, snapshot, secrets_namespace))
        .transpose()?;
    Ok(Profile {
        transmit: interval(
            "transmitIntervalMilliseconds",
            spec.transmit_interval_milliseconds,
        )?,
        receive: interval(
            "receiveIntervalMilliseconds",
            spec.receive_interval_milliseconds,
        )?,
        multiplier,
        echo,
        passive: spec.passive,
        minimum_ttl: u8::try_from(spec.minimum_ttl)
            .map_err(|_| "minimumTTL is not between 1 and 255")?,
        auth,
    })
}

/// Without its key a session is not run at all: one without authentication would be worse.
fn authentication(
    written: &BfdAuthentication,
    snapshot: &Snapshot,
    secrets_namespace: &str,
) -> Result<Auth, String> {
    let place = format!("Secret {secrets_namespace}/{}", written.secret_ref.name);
    let secret = snapshot
        .secret(secrets_namespace, &written.secret_ref.name)
        .ok_or_else(|| format!("{place} does not exist"))?;
    let key = secret
        .value("password")
        .ok_or_else(|| format!("{place} has no key 'password'"))?;
    let kind = match written.kind {
        BfdAuthType::SimplePassword => AuthType::SimplePassword,
        BfdAuthType::KeyedMD5 => AuthType::KeyedMd5,
        BfdAuthType::MeticulousKeyedMD5 => AuthType::MeticulousKeyedMd5,
        BfdAuthType::KeyedSHA1 => AuthType::KeyedSha1,
        BfdAuthType::MeticulousKeyedSHA1 => AuthType::MeticulousKeyedSha1,
    };
    let key_id = u8::try_from(written.key_id).map_err(|_| "keyID is not between 0 and 255")?;
    Auth::new(kind, key_id, key.as_slice()).map_err(|error| format!("{place}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(written: &str) -> Result<Echo, String> {
        let spec = serde_json::from_str(written).expect("a spec");
        profile(&spec, &Snapshot::default(), "kube-system").map(|profile| profile.echo)
    }

    #[test]
    fn echo_is_off_unless_written_and_each_way_by_itself() {
        let ms = |ms| Some(Interval::from_ms(ms).expect("in range"));
        for (written, transmit, receive) in [
            ("{}", None, None),
            (
                r#"{"echo": {"transmitIntervalMilliseconds": 50}}"#,
                ms(50),
                None,
            ),
            (
                r#"{"echo": {"receiveIntervalMilliseconds": 20}}"#,
                None,
                ms(20),
            ),
            (
                r#"{"echo": {"transmitIntervalMilliseconds": 50, "receiveIntervalMilliseconds": 20}}"#,
                ms(50),
                ms(20),
            ),
        ] {
            assert_eq!(echo(written), Ok(Echo { transmit, receive }), "{written}");
        }
    }

    #[test]
    fn echo_that_says_nothing_or_too_much_is_refused_with_its_place() {
        let error = echo(r#"{"echo": {}}"#).expect_err("it says nothing");
        assert!(error.contains("echo says nothing"), "{error}");
        let error = echo(r#"{"echo": {"transmitIntervalMilliseconds": 5}}"#).expect_err("too fast");
        assert!(
            error.starts_with("echo.transmitIntervalMilliseconds: "),
            "{error}"
        );
    }
}
