// SPDX-License-Identifier: Apache-2.0
//! Every view in every format, pinned in `tests/golden/`. `UPDATE_GOLDEN=1` rewrites the files;
//! their diff is the review.

mod fixtures;

use std::fs;
use std::path::Path;

use causeway_cli::commands::{
    bgp_explain, bgp_neighbor, bgp_peers, bgp_routes, config, datapath, drain, egress,
    egress_trace, fib, pods, resources, status,
};
use causeway_cli::output::{Format, Look, Options, View, render};
use fixtures::NOW_UNIX_NS;
use router_api::v1alpha1::RouteTable;

/// Compares with the golden file of that name.
fn pin(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).expect("the golden folder is writable");
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_GOLDEN=1 makes it", path.display()));
    assert_eq!(
        actual, expected,
        "{name} differs; UPDATE_GOLDEN=1 rewrites it"
    );
}

fn text(view: &View, format: Format) -> String {
    let options = Options {
        format,
        ..Options::default()
    };
    render(view, &options, &Look::PLAIN).expect("renders")
}

/// Pins table, wide table, JSON and names; notes go below the table.
fn pin_all(name: &str, view: &View) {
    let mut table = text(view, Format::Table);
    for note in view.notes() {
        table.push_str(&format!("(stderr) {note}\n"));
    }
    pin(&format!("{name}.txt"), &table);
    pin(&format!("{name}.wide.txt"), &text(view, Format::Wide));
    pin(&format!("{name}.json"), &text(view, Format::Json));
    pin(&format!("{name}.name.txt"), &text(view, Format::Name));
}

#[test]
fn status_of_a_node_with_trouble() {
    pin_all(
        "status",
        &status::view(&fixtures::status(), NOW_UNIX_NS, &Look::PLAIN),
    );
}

#[test]
fn status_of_a_healthy_node() {
    let view = status::view(&fixtures::healthy_status(), NOW_UNIX_NS, &Look::PLAIN);
    pin("status-healthy.txt", &text(&view, Format::Table));
}

#[test]
fn status_on_a_terminal_has_symbols_and_colours() {
    let look = Look {
        color: true,
        unicode: true,
        width: Some(100),
    };
    let view = status::view(&fixtures::status(), NOW_UNIX_NS, &look);
    pin(
        "status-colour.txt",
        &render(&view, &Options::default(), &look).expect("renders"),
    );
}

#[test]
fn bgp_peers_and_one_neighbor_each_way() {
    pin_all("bgp-peers", &bgp_peers::view(&fixtures::peers()));
    let yaml = text(&bgp_peers::view(&fixtures::peers()), Format::Yaml);
    pin("bgp-peers.yaml", &yaml);
    pin_all(
        "bgp-neighbor",
        &bgp_neighbor::view(&fixtures::tor_a(), NOW_UNIX_NS),
    );
    let down = bgp_neighbor::view(&fixtures::tor_b(), NOW_UNIX_NS);
    pin("bgp-neighbor-down.txt", &text(&down, Format::Table));
}

#[test]
fn bgp_routes_of_each_table() {
    let view = |table, truncated| {
        bgp_routes::view("node-a", table, &fixtures::routes(), truncated, NOW_UNIX_NS)
    };
    pin_all("bgp-routes-available", &view(RouteTable::Available, false));
    for (name, table) in [
        ("bgp-routes-received.txt", RouteTable::Received),
        ("bgp-routes-filtered.txt", RouteTable::Filtered),
    ] {
        pin(name, &text(&view(table, true), Format::Table));
    }
}

#[test]
fn an_explanation_of_a_prefix_and_of_one_without_routes() {
    let view = |answer| bgp_explain::view("10.1.0.0/16", &answer, NOW_UNIX_NS);
    pin_all("bgp-explain", &view(fixtures::prefix_explanation()));
    let nothing = view(fixtures::explanation_of_nothing());
    pin("bgp-explain-nothing.txt", &text(&nothing, Format::Table));
}

#[test]
fn a_drain_in_its_phases() {
    for phase in ["in-service", "announcing", "withdrawn"] {
        let view = drain::view(&fixtures::drain(phase), NOW_UNIX_NS);
        pin(&format!("drain-{phase}.txt"), &text(&view, Format::Table));
    }
    let view = drain::view(&fixtures::drain("withdrawn"), NOW_UNIX_NS);
    pin("drain.json", &text(&view, Format::Json));
}

#[test]
fn resources_and_one_of_them() {
    let answer = fixtures::resources();
    pin_all("resources", &resources::list(&answer));
    pin_all(
        "resource",
        &resources::get(&answer.resources[0], NOW_UNIX_NS),
    );
}

#[test]
fn pods_and_pools() {
    pin_all("pods", &pods::list(&fixtures::pods()));
    pin_all("pools", &pods::pools(&fixtures::pods()));
}

#[test]
fn kernel_routes_and_an_explanation() {
    pin_all("fib", &fib::list("node-a", &fixtures::fib(), false));
    pin_all(
        "fib-explain",
        &fib::explain("10.7.0.1", &fixtures::explanation()),
    );
}

#[test]
fn the_data_plane_in_all_its_parts() {
    let answer = fixtures::datapath();
    pin_all("datapath", &datapath::show(&answer));
    pin_all("datapath-drops", &datapath::drops(&answer));
    pin_all("datapath-endpoints", &datapath::endpoints(&answer));
    pin_all("datapath-maps", &datapath::maps(&answer));
    pin_all("datapath-hooks", &datapath::hooks(&answer));
}

#[test]
fn egress_policies_ways_rules_and_connections() {
    let answer = fixtures::egress::rules();
    pin_all("egress", &egress::list(&answer));
    let yaml = text(&egress::list(&answer), Format::Yaml);
    pin("egress.yaml", &yaml);
    pin_all("egress-rules", &egress::rules(&answer));
    let policies = egress::policies(&fixtures::egress::policies());
    pin_all("egress-policies", &policies);
    pin_all(
        "egress-gateways",
        &egress::gateways(&fixtures::egress::gateways()),
    );
    let mappings = fixtures::egress::mappings();
    pin_all("egress-nat", &egress::nat("node-a", &mappings, 2_000));
}

#[test]
fn an_explanation_of_egress_and_of_a_refusal() {
    pin_all(
        "egress-explain",
        &egress::explain(&fixtures::egress::explanation()),
    );
    let refusal = egress::explain(&fixtures::egress::refusal());
    pin("egress-explain-dropped.txt", &text(&refusal, Format::Table));
}

#[test]
fn a_trace_of_egress_at_the_pod_and_at_the_gateway() {
    let trace = egress_trace::view(&fixtures::egress::trace());
    pin_all("egress-trace", &trace);
    let gateway = egress_trace::view(&fixtures::egress::trace_at_the_gateway());
    pin("egress-trace-gateway.txt", &text(&gateway, Format::Table));
    pin("egress-trace-gateway.json", &text(&gateway, Format::Json));
}

#[test]
fn settings_and_their_origins() {
    pin_all("config", &config::document(&fixtures::config()));
    pin_all("config-origin", &config::origins(&fixtures::config()));
}

#[test]
fn a_narrow_terminal_breaks_prose_only() {
    let look = Look {
        width: Some(80),
        ..Look::PLAIN
    };
    let view = bgp_routes::view(
        "node-a",
        RouteTable::Available,
        &fixtures::routes(),
        false,
        NOW_UNIX_NS,
    );
    pin(
        "bgp-routes-narrow.txt",
        &render(&view, &Options::default(), &look).expect("renders"),
    );
}

#[test]
fn rows_are_sorted_by_value_in_every_format() {
    let view = pods::list(&fixtures::pods());
    let options = |sort_by: &str, format| Options {
        format,
        sort_by: Some(sort_by.into()),
        ..Options::default()
    };
    let names = |sort_by| render(&view, &options(sort_by, Format::Name), &Look::PLAIN);
    let by_name = names("name").expect("a column");
    assert_eq!(
        by_name, "ba9876543210/eth0\ndefault/web-0\n",
        "an unnamed pod is `-`"
    );
    assert_eq!(
        names("endpoint").expect("a column"),
        "default/web-0\nba9876543210/eth0\n"
    );
    let failure = names("adresses").unwrap_err();
    assert!(
        failure
            .fix
            .unwrap()
            .starts_with("did you mean `Addresses`?")
    );
}
