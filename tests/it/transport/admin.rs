//! The admin listener: probes, status and metrics.

use std::collections::BTreeSet;

use serde_json::Value;
use tonic::Code;

use crate::harness::{
    admin::checks_of,
    app::presenting,
    backend::{Backend, Embedded, on_both_stores},
    eventually,
    fixture::Fixture,
    keys::of_acme,
    refusal::code_name,
};

on_both_stores! {
    status_names_the_tier_and_the_cause_of_an_outage,
}

#[tokio::test]
async fn probes_of_a_healthy_service_are_ok_and_other_paths_are_not_found() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    for probe in ["/livez", "/readyz"] {
        let answer = service.admin.get(probe).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{probe}");
    }
    for path in ["/x", "/healthz", "/metrics/", "/status/x", "/livez?x=1/..", "/keys"] {
        let expected = if path.starts_with("/livez") { 200 } else { 404 };
        assert_eq!(service.admin.get(path).await.status, expected, "{path}");
    }
}

#[tokio::test]
async fn root_leads_to_every_path_as_text_and_for_a_browser_as_links() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let text = service.admin.get("/").await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let html = service.admin.get_accepting("/", "text/html,*/*;q=0.8").await;
    assert_eq!(html.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!((text.status, html.status), (200, 200));
    assert_eq!(text.body.lines().count(), 5, "{}", text.body);
    assert!(!html.body.contains("{links}"), "{}", html.body);
    for line in text.body.lines() {
        let path = line.split_whitespace().next().unwrap();
        assert!(html.body.contains(&format!(r#"<a href="{path}">"#)), "{path}: {}", html.body);
        assert_ne!(service.admin.get(path).await.status, 404, "{path}");
    }
}

async fn status_names_the_tier_and_the_cause_of_an_outage(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let admin = fixture.service.admin;
    let answer = admin.get("/status").await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    let well: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(well["state"], "normal");
    assert_eq!(well["serving"], true);
    assert_eq!(well["dominant_cause"], Value::Null);
    assert_eq!(well["tiers"]["store"]["state"], "up");
    assert_eq!(well["tiers"]["store"]["breaker"], "closed");
    assert_eq!(well["version"], env!("CARGO_PKG_VERSION"));
    assert!(well["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{well}");
    assert!(well["for_seconds"].is_u64());

    fixture.backend.vanish().await;
    let out = eventually("the outage is shown", async || {
        let status = admin.status().await;
        (status["state"] == "degraded").then_some(status)
    })
    .await;
    assert_eq!(out["serving"], true);
    assert_eq!(out["dominant_cause"]["tier"], "store");
    assert_eq!(out["dominant_cause"]["cause"], "unreachable");
    let store = &out["tiers"]["store"];
    assert_eq!((&store["state"], &store["cause"]), (&"down".into(), &"unreachable".into()));
    assert!(!store["detail"].as_str().unwrap().is_empty());
    assert!(store["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{out}");

    // A browser gets the same as a page.
    let page = admin.get_accepting("/status", "text/html,application/xhtml+xml").await;
    assert!(page.headers["content-type"].starts_with("text/html"), "{page:?}");
    for shown in ["degraded", "unreachable", "down"] {
        assert!(page.body.contains(shown), "{page:?}");
    }
    fixture.backend.come_back().await;
    eventually("all is well again", async || {
        (admin.status().await["state"] == "normal").then_some(())
    })
    .await;
}

/// Why a failure may have been masked.
const CAUSES: [&str; 13] = [
    "unreachable",
    "timeout",
    "saturated",
    "forbidden",
    "schema",
    "unreadable",
    "lagging",
    "blocked",
    "breaker_open",
    "suspect",
    "secret_unknown",
    "overloaded",
    "internal",
];

#[tokio::test]
async fn every_series_is_there_from_the_start_and_counters_begin_at_zero() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let answer = service.admin.get("/metrics").await;
    assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{answer:?}");
    service.admin.until_metric("keystead_feed_connected", 1.0).await;
    let scrape = service.admin.scrape().await;

    let labelled = |name: &str, result: &str| format!(r#"{name}{{result="{result}"}}"#);
    let mut series: Vec<String> = [
        "keystead_cache_entries",
        "keystead_log_lines_dropped_total",
        "keystead_rows_outranked_total",
        "keystead_snapshot_changes_lost_total",
        "keystead_store_in_flight",
        "keystead_store_queries_total",
    ]
    .map(str::to_owned)
    .into();
    series.extend(
        ["absent", "fresh", "miss", "revalidating", "stale_if_error"]
            .map(|result| labelled("keystead_cache_lookups_total", result)),
    );
    for (name, results) in [
        ("keystead_snapshot_loads_total", ["none", "refused", "restored"].as_slice()),
        ("keystead_snapshot_writes_total", &["failed", "written"]),
    ] {
        series.extend(results.iter().map(|result| labelled(name, result)));
    }
    series.extend(
        ["absent", "error", "found"].map(|result| labelled("keystead_store_lookups_total", result)),
    );
    for surface in ["authz", "ext_authz", "forward_auth"] {
        let series_of = |(code, reason)| checks_of(surface, code_name(code), reason);
        series.extend(outcomes().map(series_of));
        series.push(checks_of(surface, "CANCELLED", ""));
        let took =
            |part| format!(r#"keystead_check_duration_seconds_{part}{{surface="{surface}"}}"#);
        series.extend(["count", "sum"].map(took));
    }

    series.extend(
        ["written", "failed"].map(|result| labelled("keystead_snapshot_writes_total", result)),
    );
    series.extend(
        ["restored", "none", "refused"]
            .map(|result| labelled("keystead_snapshot_loads_total", result)),
    );
    series.push("keystead_snapshot_changes_lost_total".to_owned());
    series.push("keystead_connection_held_bytes".to_owned());
    let ended = |why| format!(r#"keystead_connections_ended_total{{why="{why}"}}"#);
    let refused = ["full", "share"];
    let by_us = ["age", "drain", "drain_timed_out", "resets", "flood", "unread"];
    series.extend(by_us.into_iter().chain(refused).map(ended));
    series.push("keystead_denials_without_evidence_total".to_owned());
    for cause in CAUSES {
        let masked = "keystead_masked_failures_total";
        series.push(format!(r#"{masked}{{cause="{cause}",tier="store"}}"#));
        series.push(format!(r#"keystead_refreshes_dropped_total{{cause="{cause}"}}"#));
    }
    series.extend(
        ["known", "never_seen"].map(|lane| format!(r#"keystead_fill_queued{{lane="{lane}"}}"#)),
    );
    let states = ["closed", "open", "half_open"];
    series.extend(
        states.map(|to| format!(r#"keystead_breaker_transitions_total{{tier="store",to="{to}"}}"#)),
    );

    for name in &series {
        assert_eq!(scrape.get(name).to_bits(), 0, "{name}");
    }
    series.extend(["closed", "no_preface", "broken"].map(ended));
    let state = |state| format!(r#"keystead_instance_state{{state="{state}"}}"#);
    assert_eq!(scrape.get(&state("normal")).to_bits(), 1_f64.to_bits());
    series.extend(["starting", "normal", "degraded", "cold", "draining"].map(state));
    series.extend(
        ["unknown", "read_only", "ok", "blocked", "failing"]
            .map(|state| format!(r#"keystead_write_path{{state="{state}"}}"#)),
    );
    let breaker = |state| format!(r#"keystead_breaker_state{{state="{state}",tier="store"}}"#);
    assert_eq!(scrape.get(&breaker("closed")).to_bits(), 1_f64.to_bits());
    series.extend(states.map(breaker));
    series.extend(
        [
            "keystead_feed_connected",
            "keystead_store_suspect",
            "keystead_store_lagging",
            "keystead_secret_unknown",
            "keystead_feed_lag_seconds",
            "keystead_herd_headroom_ratio",
        ]
        .map(str::to_owned),
    );
    let theirs: BTreeSet<&str> =
        scrape.names().filter(|name| !name.contains("_seconds_bucket{")).collect();
    assert_eq!(theirs, series.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn durations_are_measured_from_the_first_check_on() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    for _ in 0..3 {
        service.check_key(&key).await.unwrap();
    }
    service.check(presenting("ks_live_")).await.unwrap_err();
    let scrape = service.admin.scrape().await;
    for (series, expected) in [
        (r#"keystead_check_duration_seconds_count{surface="authz"}"#, 4.0),
        (r#"keystead_check_duration_seconds_bucket{surface="authz",le="+Inf"}"#, 4.0),
        ("keystead_store_query_duration_seconds_count", 1.0),
    ] {
        assert_eq!(scrape.get(series).to_bits(), f64::to_bits(expected), "{series}");
    }
}

/// Every outcome of a check that an alert may be made on.
fn outcomes() -> impl Iterator<Item = (Code, &'static str)> {
    let of = |code, reasons: &[&'static str]| reasons.iter().map(move |r| (code, *r)).collect();
    [
        of(Code::Ok, &[""]),
        of(Code::InvalidArgument, &["REQUEST_INVALID"]),
        of(Code::Unimplemented, &["REQUEST_INVALID"]),
        of(
            Code::Unauthenticated,
            &[
                "CREDENTIAL_MISSING",
                "CREDENTIAL_MALFORMED",
                "KEY_UNKNOWN",
                "KEY_REVOKED",
                "KEY_DISABLED",
                "KEY_EXPIRED",
                "KEY_NOT_YET_VALID",
            ],
        ),
        of(
            Code::PermissionDenied,
            &["SCOPE_MISSING", "CLIENT_NETWORK_FORBIDDEN", "AUDIENCE_FORBIDDEN"],
        ),
        of(
            Code::Unavailable,
            &[
                "STORE_UNREACHABLE",
                "STORE_TIMEOUT",
                "STORE_SATURATED",
                "STORE_SUSPECT",
                "STORE_LAGGING",
                "SECRET_UNKNOWN",
                "BREAKER_OPEN",
                "OVERLOADED",
                "DRAINING",
            ],
        ),
        of(Code::Internal, &["INTERNAL"]),
    ]
    .into_iter()
    .flat_map(|rows: Vec<_>| rows)
}
