// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp explain`: why a prefix is routed and announced as it is.

use std::net::IpAddr;

use bgp_wire::RouteDistinguisher;
use router_api::Connection;
use router_api::v1alpha1::{
    Advert, AdvertExplanation, ExplainPrefixRequest, ExplainPrefixResponse, PathExplanation,
    PolicyStatementRef, PrefixExplanation,
};
use serde_json::{Value, json};
use tonic::Code;

use super::bgp_neighbor;
use super::bgp_routes::{attributes_json, attributes_text, next_hop_text, route_json};
use crate::args::ExplainArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Page, Tone, View};
use crate::run::Outcome;

pub(crate) async fn fetch(
    connection: &Connection,
    args: &ExplainArgs,
    now_unix_ns: i64,
) -> Result<Outcome, Failure> {
    let asked = Asked::of(args)?;
    let mut request = ExplainPrefixRequest {
        destination: asked.destination.to_owned(),
        route_distinguisher: asked.rd.unwrap_or_default().to_owned(),
        instance: args.instance.clone().unwrap_or_default(),
        peer: String::new(),
    };
    if let Some(name) = asked.peer {
        match name.split_once('/') {
            Some((instance, peer)) => {
                request.instance = instance.to_owned();
                request.peer = peer.to_owned();
            }
            None => request.peer = name.to_owned(),
        }
    }
    let answer = match connection.bgp().explain_prefix(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            if status.code() == Code::NotFound
                && let Some(peer) = asked.peer
            {
                // Says which name is near.
                bgp_neighbor::find(connection, peer).await?;
            }
            return Err(Failure::from_status("cannot explain the prefix", &status));
        }
    };
    let is_found = answer.explanations.iter().any(|one| !one.paths.is_empty());
    let exit = if is_found { Exit::Ok } else { Exit::NotFound };
    Ok((view(&asked.text(), &answer, now_unix_ns), exit))
}

/// What the words ask about.
struct Asked<'a> {
    rd: Option<&'a str>,
    destination: &'a str,
    peer: Option<&'a str>,
}

impl Asked<'_> {
    fn of(args: &ExplainArgs) -> Result<Asked<'_>, Failure> {
        let mut words = args.words.iter().map(String::as_str).peekable();
        let is_rd = |word: &&str| {
            word.parse::<IpAddr>().is_err() && word.parse::<RouteDistinguisher>().is_ok()
        };
        let rd = args.rd.as_deref().or_else(|| words.next_if(is_rd));
        let Some(destination) = words.next() else {
            return Err(
                Failure::usage("a route distinguisher needs a prefix after it")
                    .fix("write `causeway bgp explain 65000:1 10.1.0.0/16`"),
            );
        };
        let peer = words.next();
        if let Some(more) = words.next() {
            return Err(Failure::usage(format!("`{more}` is one word too many"))
                .fix("write `causeway bgp explain [RD] PREFIX [PEER]`"));
        }
        Ok(Asked {
            rd,
            destination,
            peer,
        })
    }

    fn text(&self) -> String {
        match self.rd {
            Some(rd) => format!("{rd} {}", self.destination),
            None => self.destination.to_owned(),
        }
    }
}

/// The page of an explanation.
pub fn view(destination: &str, answer: &ExplainPrefixResponse, now_unix_ns: i64) -> View {
    let mut page = Page::new("BGPExplanation", destination);
    let explanations = answer.explanations.iter();
    page.set_json(json!({
        "node": answer.node,
        "destination": destination,
        "explanations": explanations.map(|one| explanation_json(one, now_unix_ns)).collect::<Vec<_>>(),
    }));
    for one in &answer.explanations {
        if !page.lines.is_empty() {
            page.line("");
        }
        explanation(&mut page, destination, one);
    }
    page.into()
}

fn explanation(page: &mut Page, destination: &str, one: &PrefixExplanation) {
    let prefix = match (one.prefix.as_str(), one.route_distinguisher.as_str()) {
        ("", _) => destination.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, rd) => format!("{rd} {prefix}"),
    };
    page.lines.push(vec![
        Cell::strong(prefix),
        Cell::plain(format!(" in {}: {}", one.instance, one.summary)),
    ]);
    if !one.paths.is_empty() {
        page.heading("Routes");
        let width = width(one.paths.iter().map(origin));
        one.paths.iter().for_each(|path| route(page, path, width));
    }
    if !one.silent.is_empty() {
        page.heading("No route from");
        let width = width(one.silent.iter().map(|silent| silent.peer.as_str()));
        for silent in &one.silent {
            page.line(format!("  {:<width$}   {}", silent.peer, silent.reason));
        }
    }
    if !one.adverts.is_empty() {
        page.heading("Sent to");
        let width = width(one.adverts.iter().map(|advert| advert.peer.as_str()));
        for advert in &one.adverts {
            sent(page, advert, width);
        }
    }
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

/// Who said a route.
fn origin(path: &PathExplanation) -> &str {
    match path.route.as_ref().map_or("", |route| route.peer.as_str()) {
        "" => "this node",
        peer => peer,
    }
}

fn route(page: &mut Page, path: &PathExplanation, width: usize) {
    let route = path.route.clone().unwrap_or_default();
    let (tone, word) = match path.verdict.as_str() {
        "best" => (Tone::Good, "best"),
        "multipath" => (Tone::Good, "used"),
        "rejected" => (Tone::Bad, "rejected"),
        "next-hop-unreachable" => (Tone::Bad, "unusable"),
        _ => (Tone::Plain, "not used"),
    };
    let why = match (path.verdict.as_str(), path.rule.as_str()) {
        ("best", _) => String::new(),
        (_, "") => route.reason.clone(),
        (_, rule) => format!("{} ({rule})", route.reason),
    };
    let name = format!("  {:<width$}   ", origin(path));
    let word = if why.is_empty() {
        word.to_owned()
    } else {
        format!("{word:<11}")
    };
    page.lines.push(vec![
        Cell::plain(name),
        Cell::toned(tone, word),
        Cell::plain(why),
    ]);
    let indent = " ".repeat(width + 5);
    if let Some(lost) = &path.lost {
        let step = lost.step.replace('-', " ");
        page.line(format!(
            "{indent}{step} {}, against {} of {} ({})",
            lost.value, lost.other_value, lost.other_peer, lost.rule
        ));
    }
    if let Some(attributes) = route.attributes.as_ref().filter(|_| !route.peer.is_empty()) {
        let text = attributes_text(attributes);
        let hop = next_hop_text(&route);
        page.line(match route.label {
            Some(label) => format!("{indent}via {hop} label {label} {text}"),
            None => format!("{indent}via {hop} {text}"),
        });
    }
    if route.stale {
        page.line(format!(
            "{indent}kept from a session that is gone, until the peer is back (RFC 4724)"
        ));
    }
}

fn sent(page: &mut Page, advert: &AdvertExplanation, width: usize) {
    for (at, one) in advert.adverts.iter().enumerate() {
        let name = if at == 0 { advert.peer.as_str() } else { "" };
        let (tone, word) = match (one.sent, advert.pending) {
            (true, false) => (Tone::Good, "sent"),
            (true, true) => (Tone::Notice, "pending"),
            (false, _) => (Tone::Plain, "not sent"),
        };
        page.lines.push(vec![
            Cell::plain(format!("  {name:<width$}   ")),
            Cell::toned(tone, format!("{word:<11}")),
            Cell::plain(advert_text(one, advert.adverts.len() > 1)),
        ]);
    }
    let indent = " ".repeat(width + 5);
    let withdrawn = advert.pending && advert.adverts.iter().all(|one| !one.sent);
    if withdrawn {
        page.line(format!("{indent}the peer has yet to be told so"));
    }
    if advert.waiting_bytes > 0 {
        page.line(format!(
            "{indent}{} bytes are not written to the peer yet, and this may be among them",
            advert.waiting_bytes
        ));
    }
}

fn advert_text(one: &Advert, several: bool) -> String {
    let from = match one.from.as_str() {
        "" => "the node's own route".to_owned(),
        peer => format!("the route of {peer}"),
    };
    if let Some(attributes) = one.attributes.as_ref().filter(|_| one.sent) {
        let text = attributes_text(attributes);
        return format!("{from}, via {} {text}", one.next_hop);
    }
    let why = match one.rule.as_str() {
        "" => one.reason.clone(),
        rule => format!("{} ({rule})", one.reason),
    };
    if several && !one.from.is_empty() {
        format!("{from}: {why}")
    } else {
        why
    }
}

fn explanation_json(one: &PrefixExplanation, now_unix_ns: i64) -> Value {
    let paths = one.paths.iter().map(|path| {
        let route = path.route.clone().unwrap_or_default();
        let attributes = route.attributes.clone().unwrap_or_default();
        json!({
            "route": route_json(&route, &attributes, now_unix_ns),
            "verdict": path.verdict,
            "rejection": path.rejection,
            "rule": path.rule,
            "policy": path.policy.as_ref().map(policy_json),
            "lost": path.lost.as_ref().map(|lost| json!({
                "step": lost.step,
                "rule": lost.rule,
                "value": lost.value,
                "other-value": lost.other_value,
                "other-peer": lost.other_peer,
            })),
        })
    });
    let silent = one.silent.iter().map(|silent| {
        json!({
            "peer": silent.peer,
            "peer-address": silent.peer_address,
            "silence": silent.silence,
            "reason": silent.reason,
        })
    });
    let adverts = one.adverts.iter().map(|advert| {
        json!({
            "peer": advert.peer,
            "peer-address": advert.peer_address,
            "pending": advert.pending,
            "waiting-bytes": advert.waiting_bytes,
            "routes": advert.adverts.iter().map(advert_json).collect::<Vec<_>>(),
        })
    });
    let mut explained = json!({
        "instance": one.instance,
        "local-asn": one.local_asn,
        "prefix": one.prefix,
        "summary": one.summary,
        "covering-prefix": one.covering_prefix,
        "paths": paths.collect::<Vec<_>>(),
        "silent": silent.collect::<Vec<_>>(),
        "adverts": adverts.collect::<Vec<_>>(),
    });
    if !one.route_distinguisher.is_empty() {
        explained["route-distinguisher"] = one.route_distinguisher.as_str().into();
    }
    explained
}

fn advert_json(one: &Advert) -> Value {
    json!({
        "from": one.from,
        "sent": one.sent,
        "next-hop": one.next_hop,
        "attributes": one.attributes.as_ref().map(attributes_json),
        "withheld": one.withheld,
        "reason": one.reason,
        "rule": one.rule,
        "policy": one.policy.as_ref().map(policy_json),
    })
}

fn policy_json(by: &PolicyStatementRef) -> Value {
    let statement = Some(&by.statement).filter(|name| !name.is_empty());
    json!({"policy": by.policy, "statement": statement})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, rd: Option<&str>) -> Result<(String, Option<String>), String> {
        let args = ExplainArgs {
            words: line.split_whitespace().map(str::to_owned).collect(),
            rd: rd.map(str::to_owned),
            instance: None,
        };
        let asked = Asked::of(&args).map_err(|failure| failure.fix.unwrap_or_default())?;
        Ok((asked.text(), asked.peer.map(str::to_owned)))
    }

    #[test]
    fn a_route_distinguisher_is_told_from_a_prefix_and_an_address() {
        let plain = |text: &str| Ok((text.to_owned(), None));
        for text in [
            "10.1.0.0/16",
            "fd00::1",
            "2001:db8::/32",
            "::",
            "65000:1 10.1.0.0/16",
        ] {
            assert_eq!(asked(text, None), plain(text));
        }
        assert_eq!(
            asked("192.0.2.1:7 fd00::/8 fabric/tor-a", None),
            Ok((
                "192.0.2.1:7 fd00::/8".to_owned(),
                Some("fabric/tor-a".to_owned())
            ))
        );
        assert_eq!(
            asked("10.1.2.3 tor-a", Some("65000:1")),
            Ok(("65000:1 10.1.2.3".to_owned(), Some("tor-a".to_owned())))
        );
        assert!(
            asked("65000:1", None)
                .unwrap_err()
                .contains("65000:1 10.1.0.0/16")
        );
        assert!(asked("10.1.0.0/16 tor-a tor-b", None).is_err());
    }
}
