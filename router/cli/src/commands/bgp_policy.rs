// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp policy`.

use std::path::Path;

use bgp_config::policy_config;
use bgp_core::config::PeerName;
use bgp_core::policy::{
    Action, AnyCommunity, Decision, NextHopChange, Policy, RouteContext, StatementOutcome,
    StatementVerdict, Verdict,
};
use bgp_wire::PathAttributes;
use router_api::Connection;
use router_api::v1alpha1::ListResourcesRequest;
use router_resources::check::check as check_files;
use router_resources::kinds::PolicySpec;
use router_resources::parse::parse_file;
use router_resources::{Body, Kind};
use router_types::{Asn, Family};
use serde_json::{Value, json};

use crate::args::PolicyTestArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Page, Tone};
use crate::run::Outcome;
use crate::suggest::nearest;

/// With the policy the daemon holds.
pub(crate) async fn fetch(
    connection: &Connection,
    args: &PolicyTestArgs,
) -> Result<Outcome, Failure> {
    let request = ListResourcesRequest {
        kind: Kind::Policy.name().to_owned(),
        ..ListResourcesRequest::default()
    };
    let answer = connection.resources().list_resources(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot read the policy", &s))?;
    let resources = answer.into_inner().resources;
    let Some(found) = resources.iter().find(|r| r.name == args.policy) else {
        let names = resources.iter().map(|r| r.name.as_str());
        return Err(unknown(&args.policy, names));
    };
    // JSON is YAML: the daemon's copy is read as a file would be.
    let parsed = parse_file(
        Path::new("the daemon's answer"),
        found.object_json.as_bytes(),
    );
    let object = parsed.objects.into_iter().next().map(|o| o.object.body);
    match object {
        Some(Body::Policy(spec)) => test(&spec, args),
        _ => {
            let why = parsed.diagnostics.first().map(ToString::to_string);
            let failure = Failure::new("CW0007", Exit::Refused, "cannot read the daemon's policy")
                .fix("compare the versions with `causeway version`");
            Err(match why {
                Some(why) => failure.why(why),
                None => failure,
            })
        }
    }
}

/// With a policy in files.
pub(crate) fn test_files(args: &PolicyTestArgs) -> Result<Outcome, Failure> {
    let report = check_files(&args.file);
    if let Some(error) = report.diagnostics.iter().find(|d| d.is_error()) {
        let failure = Failure::new("CW0003", Exit::Refused, "the policy's file has a mistake");
        return Err(failure
            .why(error.to_string())
            .fix("`causeway config check` shows all of them"));
    }
    let Some(entry) = report.snapshot.policy(&args.policy) else {
        return Err(unknown(
            &args.policy,
            report
                .snapshot
                .policies()
                .map(|entry| entry.metadata.name.as_str()),
        ));
    };
    test(entry.spec, args)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let fix = match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => "`causeway resources --kind BGPPolicy` lists what the daemon has".to_owned(),
    };
    Failure::new("CW0002", Exit::NotFound, format!("no BGPPolicy {name}")).fix(fix)
}

/// Follows the route of the arguments through a policy.
pub fn test(spec: &PolicySpec, args: &PolicyTestArgs) -> Result<Outcome, Failure> {
    let compiled = policy_config(&args.policy, spec)
        .and_then(|config| Policy::compile(&config).map_err(|error| error.to_string()));
    let policy = compiled.map_err(|why| {
        Failure::new("CW0003", Exit::Refused, "the policy cannot be used").why(why)
    })?;
    let attributes = attributes(args);
    let peer = args.peer.as_deref().map(PeerName::from);
    let first = args.as_path.neighbour().unwrap_or(Asn(0));
    let prefix = args.route.trunc();
    let context = RouteContext {
        family: match prefix {
            ipnet::IpNet::V4(_) => Family::IPV4_UNICAST,
            ipnet::IpNet::V6(_) => Family::IPV6_UNICAST,
        },
        next_hop: args.next_hop,
        source: args.source,
        learned_from: peer.as_ref(),
        peer_asn: args.peer_asn.map_or(first, Asn),
        local_asn: Asn(args.local_asn),
    };
    let (verdicts, _) = policy.trace(&attributes, &context, &prefix);
    let judgement = policy.judge(&attributes, &context);
    let decision = judgement.decide(&prefix);
    let changes = if decision.is_accepted() {
        let (changed, hop) = judgement.apply(decision, attributes.clone());
        changes(&attributes, &changed, args, hop)
    } else {
        Vec::new()
    };
    let exit = if decision.is_accepted() {
        Exit::Ok
    } else {
        Exit::Found
    };
    let page = page(args, &prefix.to_string(), decision, &verdicts, &changes);
    Ok((page.into(), exit))
}

fn attributes(args: &PolicyTestArgs) -> PathAttributes {
    let mut attributes = PathAttributes {
        origin: Some(args.origin),
        as_path: Some(args.as_path.clone()),
        med: args.med,
        local_pref: args.local_preference,
        ..PathAttributes::default()
    };
    let mut communities = args.communities.clone();
    communities.sort();
    communities.dedup();
    for community in communities {
        match community {
            AnyCommunity::Standard(c) => attributes.communities.push(c),
            AnyCommunity::Large(c) => attributes.large_communities.push(c),
            AnyCommunity::Extended(c) => attributes.extended_communities.push(c),
        }
    }
    attributes
}

/// What differs between a route and what a policy makes of it.
struct Difference {
    attribute: &'static str,
    before: String,
    after: String,
}

fn changes(
    before: &PathAttributes,
    after: &PathAttributes,
    args: &PolicyTestArgs,
    hop: Option<NextHopChange>,
) -> Vec<Difference> {
    let number = |value: Option<u32>| value.map_or("none".to_owned(), |v| v.to_string());
    let hop_before = args
        .next_hop
        .map_or("none".to_owned(), |hop| hop.to_string());
    let hop_after = match hop {
        None => hop_before.clone(),
        Some(NextHopChange::Address(address)) => address.to_string(),
        Some(NextHopChange::Own) => "this end of the session".to_owned(),
        Some(NextHopChange::Unchanged) => "as received".to_owned(),
    };
    let path = |route: &PathAttributes| match &route.as_path {
        Some(path) if !path.segments.is_empty() => path.to_string(),
        _ => "empty".to_owned(),
    };
    let all = [
        (
            "localPreference",
            number(before.local_pref),
            number(after.local_pref),
        ),
        ("med", number(before.med), number(after.med)),
        ("asPath", path(before), path(after)),
        (
            "communities",
            joined(&before.communities),
            joined(&after.communities),
        ),
        (
            "largeCommunities",
            joined(&before.large_communities),
            joined(&after.large_communities),
        ),
        (
            "extendedCommunities",
            joined(&before.extended_communities),
            joined(&after.extended_communities),
        ),
        ("nextHop", hop_before, hop_after),
        (
            "origin",
            before.origin.map_or(String::new(), |o| o.to_string()),
            after.origin.map_or(String::new(), |o| o.to_string()),
        ),
    ];
    all.into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(attribute, before, after)| Difference {
            attribute,
            before,
            after,
        })
        .collect()
}

fn joined<T: ToString>(list: &[T]) -> String {
    if list.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

fn page(
    args: &PolicyTestArgs,
    prefix: &str,
    decision: Decision,
    verdicts: &[StatementVerdict],
    changes: &[Difference],
) -> Page {
    let mut page = Page::new("BGPPolicyTest", format!("BGPPolicy/{}", args.policy));
    let decider = verdicts
        .iter()
        .find(|verdict| matches!(verdict.outcome, StatementOutcome::Matched(Action::Final(_))));
    page.set_json(json!({
        "policy": args.policy,
        "route": prefix,
        "verdict": if decision.is_accepted() { "Accept" } else { "Reject" },
        "decidedBy": decider.map(|verdict| verdict.statement.as_str()),
        "statements": verdicts.iter().map(statement_json).collect::<Vec<_>>(),
        "changes": changes.iter().map(|change| json!({
            "attribute": change.attribute, "before": change.before, "after": change.after,
        })).collect::<Vec<_>>(),
    }));
    let (tone, word) = if decision.is_accepted() {
        (Tone::Good, "accepted")
    } else {
        (Tone::Bad, "rejected")
    };
    let by = match decider {
        Some(verdict) => format!("by statement {}", verdict.statement),
        None => "by its default".to_owned(),
    };
    page.lines.push(vec![
        Cell::strong(prefix),
        Cell::plain(" is "),
        Cell::toned(tone, word),
        Cell::plain(format!(" by BGPPolicy/{}, {by}", args.policy)),
    ]);
    page.heading("Statements");
    let width = verdicts.iter().map(|v| v.statement.chars().count()).max();
    let width = width.unwrap_or(0);
    for verdict in verdicts {
        let (tone, word, why) = in_words(&verdict.outcome);
        let name = format!("  {:<width$}   ", verdict.statement);
        let mut lines = why.into_iter();
        let word = format!("{word:<10}");
        page.lines.push(vec![
            Cell::plain(name),
            match lines.len() {
                0 => Cell::toned(tone, word.trim_end()),
                _ => Cell::toned(tone, word),
            },
            Cell::plain(lines.next().unwrap_or_default()),
        ]);
        for line in lines {
            page.line(format!("  {:<width$}   {:<10}{line}", "", ""));
        }
    }
    if verdicts.is_empty() {
        page.line("  none");
    }
    if !changes.is_empty() {
        page.heading("Changes");
        for change in changes {
            page.field(
                change.attribute,
                format!("{} -> {}", change.before, change.after),
            );
        }
    }
    page
}

/// How a statement fared: its tone, a word, and a line for each condition that did not hold.
fn in_words(outcome: &StatementOutcome) -> (Tone, &'static str, Vec<String>) {
    match outcome {
        StatementOutcome::Matched(Action::Final(Verdict::Accept)) => {
            (Tone::Good, "accept", Vec::new())
        }
        StatementOutcome::Matched(Action::Final(Verdict::Reject)) => {
            (Tone::Bad, "reject", Vec::new())
        }
        StatementOutcome::Matched(Action::Continue) => (Tone::Notice, "continue", Vec::new()),
        StatementOutcome::NotReached => (Tone::Plain, "not tried", Vec::new()),
        StatementOutcome::Failed(failures) => {
            let line = |f: &bgp_core::policy::ConditionFailure| {
                format!("{}: {}; wanted {}", f.condition, f.found, f.wanted)
            };
            (Tone::Plain, "no match", failures.iter().map(line).collect())
        }
    }
}

fn statement_json(verdict: &StatementVerdict) -> Value {
    let (outcome, failures) = match &verdict.outcome {
        StatementOutcome::Matched(Action::Final(Verdict::Accept)) => ("Accept", &[][..]),
        StatementOutcome::Matched(Action::Final(Verdict::Reject)) => ("Reject", &[][..]),
        StatementOutcome::Matched(Action::Continue) => ("Continue", &[][..]),
        StatementOutcome::NotReached => ("NotTried", &[][..]),
        StatementOutcome::Failed(failures) => ("NoMatch", failures.as_slice()),
    };
    let failures = failures.iter().map(|failure| {
        json!({
            "condition": failure.condition, "found": failure.found, "wanted": failure.wanted,
        })
    });
    json!({
        "name": verdict.statement,
        "outcome": outcome,
        "failed": failures.collect::<Vec<_>>(),
    })
}
