// SPDX-License-Identifier: Apache-2.0
//! How every part of the daemon does, gathered from what each says about itself.

use bgp_bfd::wire::State;
use bgp_bfdd::client::Connection;
use bgp_bfdd::protocol::SessionReport;
use router_api::v1alpha1::{self as api, Health};
use router_store::Status;

use crate::grpc::bgp_peers;
use crate::intent::lock;
use crate::run::Parts;

mod egress;

/// Components in the order to show them, and what is wrong, worst first.
#[derive(Default)]
pub struct Report {
    pub components: Vec<api::Component>,
    pub issues: Vec<api::Issue>,
}

impl Report {
    /// The worst state of the components.
    pub fn worst(&self) -> Health {
        self.components
            .iter()
            .map(api::Component::health)
            .max()
            .unwrap_or(Health::Unspecified)
    }

    fn component(&mut self, name: &str, message: String, next: &str, counts: &[(&str, u64)]) {
        let worst = self
            .issues
            .iter()
            .filter(|issue| issue.component == name)
            .map(api::Issue::severity)
            .max()
            .unwrap_or(Health::Ok);
        self.components.push(api::Component {
            name: name.to_owned(),
            health: worst.into(),
            message,
            next_command: next.to_owned(),
            counts: counts
                .iter()
                .map(|(name, value)| api::Count {
                    name: (*name).to_owned(),
                    value: *value,
                })
                .collect(),
        });
    }

    fn issue(
        &mut self,
        severity: Health,
        (component, code): (&str, &str),
        object: String,
        message: String,
        next: String,
    ) {
        self.issues.push(api::Issue {
            severity: severity.into(),
            component: component.to_owned(),
            object,
            message,
            next_command: next,
            code: code.to_owned(),
            ..Default::default()
        });
    }
}

/// Looks at everything.
pub async fn look(parts: &Parts) -> Report {
    let mut report = Report::default();
    resources(parts, &mut report);
    bgp(parts, &mut report).await;
    bfd(parts, &mut report).await;
    routes(parts, &mut report).await;
    pods(parts, &mut report).await;
    datapath(parts, &mut report);
    egress::egress(parts, &mut report).await;
    if let Some(store) = &parts.store {
        // The component is as well as what was said of it before.
        if parts.effective.settings.egress.secret_file.is_none() {
            unused_store(&mut report);
        }
        self::store(&store.status(), &mut report);
    }
    report
        .issues
        .sort_by_key(|issue| std::cmp::Reverse(issue.severity));
    report
}

fn resources(parts: &Parts, report: &mut Report) {
    let state = lock(&parts.state);
    let files = state.store.files();
    for file in files.iter().filter(|file| file.is_stale) {
        let errors: Vec<String> = file
            .diagnostics
            .iter()
            .filter(|finding| finding.is_error())
            .map(ToString::to_string)
            .collect();
        let message = match file.objects {
            0 => "broken; nothing of it is in force: ",
            _ => "broken; its last good version is in force: ",
        };
        report.issue(
            Health::Warning,
            ("resources", "CW0601"),
            file.path.display().to_string(),
            format!("{message}{}", errors.join("; ")),
            format!("causeway config check {}", file.path.display()),
        );
    }
    for failure in &state.failures {
        let next = "causeway resources".to_owned();
        report.issue(
            Health::Error,
            ("resources", ""),
            String::new(),
            failure.clone(),
            next,
        );
    }
    let statuses = state.store.statuses();
    let in_force = statuses.iter().filter(|status| status.in_force).count();
    report.component(
        "resources",
        format!("{in_force} objects in {} files", files.len()),
        "causeway resources",
        &[("objects", in_force as u64), ("files", files.len() as u64)],
    );
}

/// Shown where there is one.
fn store(status: &Status, report: &mut Report) {
    let next = "causeway config show --origin";
    let message = match (&status.endpoint, &status.problem) {
        (Some(endpoint), _) => format!("{endpoint} answers"),
        (None, problem) => {
            let why = problem.as_deref().unwrap_or("connecting");
            let seconds = status.since.elapsed().as_secs();
            report.issue(
                Health::Warning,
                ("store", "CW0602"),
                "etcd".to_owned(),
                format!("not reached for {seconds} s: {why}; everything goes on without it"),
                next.to_owned(),
            );
            "not reached".to_owned()
        }
    };
    let reached = u64::from(status.endpoint.is_some());
    report.component("store", message, next, &[("reached", reached)]);
}

/// A store that nothing is written in.
fn unused_store(report: &mut Report) {
    report.issue(
        Health::Warning,
        ("store", "CW0603"),
        "etcd".to_owned(),
        "not used: store.endpoints is set and egress.secretFile is not, without which this node agrees \
         about nothing with other gateways"
            .to_owned(),
        "causeway config show --origin".to_owned(),
    );
}

/// Shown where there are sessions, or should be.
async fn bfd(parts: &Parts, report: &mut Report) {
    let wanted = parts.speaker.sessions().await.iter().any(|instance| {
        let mut peers = instance.config.peers().values();
        peers.any(|peer| peer.bfd.is_some())
    });
    if !wanted {
        return;
    }
    let next = || "causeway bfd sessions".to_owned();
    let connection = parts.bfd.connection().borrow().clone();
    let (sessions, warnings) = match connection {
        Connection::Connected { warnings, .. } => match parts.bfd.report().await {
            Ok(sessions) => (sessions.sessions, warnings),
            Err(error) => (Vec::new(), vec![error.to_string()]),
        },
        Connection::Missing(why) => {
            let message = format!("causeway-bfdd is not there, so no failures are found: {why}");
            let fix = "systemctl status causeway-bfdd".to_owned();
            report.issue(
                Health::Error,
                ("bfd", ""),
                "causeway-bfdd".into(),
                message,
                fix,
            );
            (Vec::new(), Vec::new())
        }
    };
    for warning in warnings {
        report.issue(
            Health::Warning,
            ("bfd", ""),
            "causeway-bfdd".into(),
            warning,
            next(),
        );
    }
    let up = |session: &&SessionReport| session.status.state == State::Up;
    for session in sessions.iter().filter(|session| !up(session)) {
        let message = match &session.failure {
            Some(failure) => failure.clone(),
            None => format!("{}: {}", session.status.state, session.status.diagnostic),
        };
        let object = format!("peer {}", session.key.peer);
        report.issue(Health::Warning, ("bfd", ""), object, message, next());
    }
    let (up, all) = (
        sessions.iter().filter(up).count() as u64,
        sessions.len() as u64,
    );
    report.component(
        "bfd",
        format!("{up} of {all} sessions up"),
        "causeway bfd sessions",
        &[("up", up), ("configured", all)],
    );
}

async fn bgp(parts: &Parts, report: &mut Report) {
    let peers = bgp_peers(parts).await;
    let established = peers
        .iter()
        .filter(|peer| peer.session_state() == api::SessionState::Established)
        .count();
    for peer in peers
        .iter()
        .filter(|p| p.session_state() != api::SessionState::Established)
    {
        let hint = if peer.down_hint.is_empty() {
            String::new()
        } else {
            format!(": {}", peer.down_hint)
        };
        report.issue(
            Health::Warning,
            ("bgp", &peer.down_code),
            format!(
                "peer {}/{} ({})",
                peer.instance, peer.name, peer.peer_address
            ),
            format!("{}{hint}", peer.down_reason),
            format!("causeway bgp neighbor {}", peer.name),
        );
    }
    for peer in &peers {
        for family in &peer.families {
            let mut limit = |code, count: u64, said: String| {
                report.issue(
                    Health::Warning,
                    ("bgp", code),
                    format!(
                        "peer {}/{} ({})",
                        peer.instance, peer.name, peer.peer_address
                    ),
                    format!("{count} {}/{} routes are {said}", family.afi, family.safi),
                    format!("causeway bgp neighbor {}", peer.name),
                );
            };
            if family.held > 0 {
                let said = format!("not sent: export.maxRoutes is {}", family.export_limit);
                limit("CW0209", family.held, said);
            }
            if family.import_warning > 0 && family.accepted >= family.import_warning.into() {
                let said = format!("taken: import.maxRoutes is {}", family.import_limit);
                limit("CW0210", family.accepted, said);
            }
        }
    }
    for instance in parts.speaker.sessions().await {
        for (address, error) in &instance.listen_failures {
            report.issue(
                Health::Error,
                ("bgp", ""),
                format!("instance {}", instance.config.name()),
                format!("cannot listen on {address}: {error}; tried again every 5 s"),
                "causeway bgp peers".to_owned(),
            );
        }
        for (name, refused) in &instance.refused_by_ranges {
            let range = instance.config.ranges().get(name);
            let max = range.map_or(0, |range| range.max());
            report.issue(
                Health::Warning,
                ("bgp", ""),
                format!("listen range {}/{name}", instance.config.name()),
                format!("full: maxPeers is {max}, and {refused} calls were refused since"),
                "causeway bgp peers".to_owned(),
            );
        }
    }
    if let Some(asked) = parts.drain.asked() {
        let reason = match asked.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let message = if asked.withdrawn {
            format!("drained, so nothing is announced{reason}")
        } else {
            let wait = asked.wait_s;
            format!("draining: GRACEFUL_SHUTDOWN is announced for {wait} s, then nothing{reason}")
        };
        report.issue(
            Health::Warning,
            ("bgp", "CW0208"),
            "node".to_owned(),
            message,
            "causeway undrain".to_owned(),
        );
    }
    let message = match peers.len() {
        0 => "no peers configured".to_owned(),
        all => format!("{established} of {all} sessions established"),
    };
    report.component(
        "bgp",
        message,
        "causeway bgp peers",
        &[
            ("established", established as u64),
            ("configured", peers.len() as u64),
        ],
    );
    if peers.is_empty()
        && let Some(component) = report.components.last_mut()
    {
        component.health = Health::Disabled.into();
    }
}

async fn routes(parts: &Parts, report: &mut Report) {
    let Some((summary, failures, unresolved, held_back)) = parts
        .routes
        .ask(|view| {
            let failures: Vec<(String, String)> = view
                .reconciler
                .failures()
                .take(10)
                .map(|(key, failure)| (key.prefix.to_string(), failure.last_error.clone()))
                .collect();
            let held_back: Vec<_> = view
                .rib
                .routes()
                .filter(|(_, chosen)| chosen.is_none())
                .map(|(key, _)| *key)
                .collect();
            // Connected and own prefixes are held back on purpose; a next hop without a way is not.
            let unresolved: Vec<String> = held_back
                .iter()
                .take(100)
                .filter(|key| {
                    let candidates = view.rib.explain(key).candidates;
                    candidates
                        .iter()
                        .any(|c| c.verdict == router_rib::Verdict::Unresolved)
                })
                .map(|key| key.prefix.to_string())
                .collect();
            (
                view.reconciler.summary(),
                failures,
                unresolved,
                held_back.len(),
            )
        })
        .await
    else {
        report.issue(
            Health::Error,
            ("routes", ""),
            String::new(),
            "the thread of the routes has ended; routes stay as they are".to_owned(),
            "restart causewayd; its log says why".to_owned(),
        );
        report.component("routes", "stopped".to_owned(), "causeway fib", &[]);
        return;
    };
    if let Some(first) = unresolved.first() {
        let count = match unresolved.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        report.issue(
            Health::Warning,
            ("routes", "CW0302"),
            format!("{first}{count}"),
            "not in the kernel: there is no way to the next hop".to_owned(),
            format!("causeway fib explain {first}"),
        );
    }
    for (prefix, error) in failures {
        report.issue(
            Health::Error,
            ("routes", "CW0301"),
            prefix.clone(),
            format!("the kernel refuses it: {error}; tried again"),
            format!("causeway fib explain {prefix}"),
        );
    }
    report.component(
        "routes",
        format!(
            "{} of {} routes in the kernel",
            summary.applied, summary.wanted
        ),
        "causeway fib",
        &[
            ("wanted", summary.wanted as u64),
            ("installed", summary.applied as u64),
            ("held back", held_back as u64),
            ("stale", summary.stale as u64),
            ("repaired", summary.repaired),
        ],
    );
}

async fn pods(parts: &Parts, report: &mut Report) {
    let Some(pods) = &parts.pods else {
        report.component(
            "pods",
            "off: no data plane".to_owned(),
            "causeway datapath",
            &[],
        );
        return;
    };
    let (status, list) = match (pods.status().await, pods.list().await) {
        (Ok(status), Ok(list)) => (status, list),
        (Err(failure), _) | (_, Err(failure)) => {
            let next = "causeway pods".to_owned();
            report.issue(
                Health::Error,
                ("pods", "CW0402"),
                String::new(),
                failure.to_string(),
                next,
            );
            report.component("pods", "stopped".to_owned(), "causeway pods", &[]);
            return;
        }
    };
    if let Some(failure) = &status.not_ready {
        report.issue(
            Health::Warning,
            ("pods", ""),
            String::new(),
            format!("a new pod would be refused: {failure}"),
            "causeway pods".to_owned(),
        );
    }
    for view in &list {
        if let Some(problem) = &view.problem {
            let pod = view.endpoint.pod.as_ref().map(ToString::to_string);
            report.issue(
                Health::Error,
                ("pods", "CW0402"),
                pod.unwrap_or_else(|| view.endpoint.attachment.to_string()),
                problem.clone(),
                "causeway pods".to_owned(),
            );
        }
    }
    report.component(
        "pods",
        format!("{} pods, MTU {}", status.endpoints, status.mtu),
        "causeway pods",
        &[("pods", status.endpoints as u64)],
    );
}

fn datapath(parts: &Parts, report: &mut Report) {
    let status = match &parts.datapath {
        Ok(datapath) => lock(datapath).status().map_err(|error| error.to_string()),
        Err(why) => Err(why.to_string()),
    };
    match status {
        Ok(status) => {
            for map in &status.maps {
                if let Some(entries) = map.entries
                    && u64::from(entries) * 10 >= u64::from(map.max_entries) * 9
                {
                    report.issue(
                        Health::Warning,
                        ("datapath", "CW0502"),
                        format!("map {}", map.name),
                        format!("{entries} of {} entries are used", map.max_entries),
                        "causeway datapath maps".to_owned(),
                    );
                }
            }
            let attached = status.attached.len();
            report.component(
                "datapath",
                format!("{attached} programs attached by {}", status.hook),
                "causeway datapath",
                &[("attached", attached as u64)],
            );
        }
        Err(error) => {
            let next = "causeway datapath".to_owned();
            report.issue(
                Health::Error,
                ("datapath", "CW0501"),
                String::new(),
                error,
                next,
            );
            report.component(
                "datapath",
                "not loaded".to_owned(),
                "causeway datapath",
                &[],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_etcd_that_is_not_reached_is_a_warning_with_its_reason() {
        let mut status = Status {
            endpoint: None,
            problem: Some("store.caFile: cannot read /x: No such file".to_owned()),
            since: Instant::now(),
        };
        let mut report = Report::default();
        store(&status, &mut report);
        assert_eq!(report.worst(), Health::Warning);
        let issue = &report.issues[0];
        assert_eq!(issue.code, "CW0602");
        let said = "not reached for 0 s: store.caFile: cannot read /x: No such file; everything goes \
                    on without it";
        assert_eq!(issue.message, said);
        status.endpoint = Some("https://e:2379".to_owned());
        let mut report = Report::default();
        store(&status, &mut report);
        assert_eq!(report.worst(), Health::Ok);
        assert_eq!(report.components[0].message, "https://e:2379 answers");
    }

    #[test]
    fn an_etcd_that_is_not_used_is_a_warning_that_names_what_is_missing() {
        let mut report = Report::default();
        unused_store(&mut report);
        let reached = Status {
            endpoint: Some("https://e:2379".to_owned()),
            problem: None,
            since: Instant::now(),
        };
        store(&reached, &mut report);
        let issue = &report.issues[0];
        assert_eq!(
            (issue.code.as_str(), report.worst()),
            ("CW0603", Health::Warning)
        );
        assert!(
            issue.message.contains("egress.secretFile is not"),
            "{issue:?}"
        );
    }
}
