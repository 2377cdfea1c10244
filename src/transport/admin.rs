//! The admin listener: HTTP for operators, probes and Prometheus.

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use crate::{
    guard::{BreakerState, BreakerView},
    instance::{Doubt, Instance, Standing, TierState},
    tasks::Tasks,
    telemetry::{Exposition, MetricsError},
    time::Clock,
};

/// The state behind the admin routes.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The state of the instance and its tiers.
    pub instance: Instance,
    /// The breaker of the store.
    pub breaker: BreakerView,
    /// The metrics.
    pub scrapes: Scrapes,
    /// The tasks whose panic breaks the process.
    pub tasks: Tasks,
    /// The clock for ages.
    pub clock: Clock,
}

/// Renders the metrics. Renderings never overlap, each serves all scrapes that arrived before it
/// began, and together they take at most a tenth of a core, however many scrapes there are. Clones
/// share renderings.
#[derive(Debug, Clone)]
pub struct Scrapes {
    exposition: Exposition,
    last: Arc<Mutex<Option<Rendering>>>,
}

#[derive(Debug)]
struct Rendering {
    began: Instant,
    took: Duration,
    text: Bytes,
}

/// Minimum time between the starts of two renderings, as a multiple of the first one's duration. A
/// rendering takes a few milliseconds.
const RENDERING_INTERVAL_FACTOR: u32 = 10;

impl Scrapes {
    /// No rendering exists yet.
    #[must_use]
    pub fn of(exposition: Exposition) -> Self {
        Self { exposition, last: Arc::default() }
    }

    /// The metrics as of some time after the call.
    async fn text(&self) -> Result<Bytes, MetricsError> {
        let called_at = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Some(Rendering { began, text, .. }) if *began > called_at => return Ok(text.clone()),
            Some(Rendering { began, took, .. }) => {
                sleep_until(*began + *took * RENDERING_INTERVAL_FACTOR).await;
            }
            None => {}
        }
        let began = Instant::now();
        let text = Bytes::from(self.exposition.text()?);
        *last = Some(Rendering { began, took: began.elapsed(), text: text.clone() });
        Ok(text)
    }
}

/// The routes of the admin listener.
pub fn admin_routes(state: AdminState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(state)
}

/// The index of endpoints, as text or as a page for a browser.
async fn index(headers: HeaderMap) -> Response {
    if takes_html(&headers) {
        let links = LINKS.map(|(path, what)| {
            format!("<dt><a href=\"{path}\">{path}</a></dt><dd>{}</dd>\n", escaped(what))
        });
        Html(INDEX.replace("{links}", &links.concat())).into_response()
    } else {
        LINKS.map(|(path, what)| format!("{path:<9} {what}\n")).concat().into_response()
    }
}

/// 200 while the process can make progress, else 503.
async fn livez(State(state): State<AdminState>) -> Response {
    if state.tasks.is_broken() {
        (StatusCode::SERVICE_UNAVAILABLE, "broken: restart this instance\n").into_response()
    } else {
        (StatusCode::OK, "ok\n").into_response()
    }
}

/// 200 while new checks should be sent here, else 503 with the reason.
async fn readyz(State(state): State<AdminState>) -> Response {
    let standing = state.instance.standing();
    if standing.state.serves() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", standing.state)).into_response()
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.scrapes.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "rendering the metrics failed");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

/// JSON, or a page for a browser.
async fn status(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let report = report(&state.instance.standing(), state.breaker.state(), &state.clock);
    if takes_html(&headers) {
        Html(page(&report)).into_response()
    } else {
        Json(report).into_response()
    }
}

/// Whether the client is a browser.
fn takes_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

fn report(standing: &Standing, breaker: BreakerState, clock: &Clock) -> Value {
    let now = clock.wall();
    let tiers = [
        ("store", &standing.store),
        ("feed", &standing.feed),
        ("write_path", &standing.write_path),
    ];
    let dominant_cause =
        standing.dominant_cause().map(|(tier, cause)| json!({"tier": tier, "cause": cause}));
    let mut tiers: Map<_, _> =
        tiers.map(|(tier, state)| (tier.to_owned(), tier_report(state, now))).into_iter().collect();
    tiers["store"]["breaker"] = json!(breaker);
    for doubt in Doubt::ALL {
        tiers["store"][doubt.as_str()] = json!(standing.doubts(doubt));
    }
    json!({
        "state": standing.state,
        "since": standing.since,
        "for_seconds": seconds_between(standing.since, now),
        "serving": standing.state.serves(),
        "dominant_cause": dominant_cause,
        "tiers": tiers,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn tier_report(state: &TierState, now: Timestamp) -> Value {
    match state {
        TierState::Unknown => json!({"state": "unknown"}),
        TierState::None => json!({"state": "none"}),
        TierState::Up => json!({"state": "up"}),
        TierState::Down { cause, detail, since } => json!({
            "state": "down",
            "cause": cause.as_str(),
            "detail": detail.as_ref(),
            "since": since,
            "for_seconds": seconds_between(*since, now),
        }),
    }
}

fn seconds_between(since: Timestamp, now: Timestamp) -> u64 {
    Duration::try_from(now.duration_since(since)).unwrap_or_default().as_secs()
}

/// The report as a self-contained page.
fn page(report: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut rows = vec![
        ("Instance".to_owned(), text(&report["state"])),
        ("Since".to_owned(), text(&report["since"])),
        (
            "New checks".to_owned(),
            if report["serving"] == true { "welcome" } else { "not sent here" }.into(),
        ),
    ];
    for (tier, state) in report["tiers"].as_object().into_iter().flatten() {
        let shown =
            ["state", "cause", "detail", "since", "breaker"].map(|field| (field, &state[field]));
        for (field, value) in shown.into_iter().filter(|(_, value)| !value.is_null()) {
            rows.push((format!("{tier}: {field}"), text(value)));
        }
    }
    rows.push(("Version".to_owned(), text(&report["version"])));
    let mut table = String::new();
    for (name, value) in rows {
        let value = escaped(&value);
        // Writing to a string cannot fail.
        let _ = writeln!(table, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    PAGE.replace("{state}", &escaped(&text(&report["state"]))).replace("{rows}", &table)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const PAGE: &str = include_str!("admin/status.html");

const INDEX: &str = include_str!("admin/index.html");

/// The endpoints of this listener.
const LINKS: [(&str, &str); 5] = [
    ("/status", "state of this instance, which tier fails, why, and since when"),
    ("/readyz", "200 while new checks should be sent here"),
    ("/livez", "200 while the process can make progress"),
    ("/metrics", "metrics for Prometheus"),
    ("/auth", "checks the key of a request (unless `listen.forward_auth` is set)"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        instance::{Dependency, TierWatch},
        store::{StoreError, StoreErrorKind},
    };

    #[tokio::test]
    async fn concurrent_scrapes_share_a_rendering_that_began_after_they_arrived() {
        let (metrics, exposition) = crate::telemetry::Metrics::new().unwrap();
        let scrapes = Scrapes::of(exposition);
        let first = scrapes.text().await.unwrap();
        metrics.denial_without_evidence();
        let all = futures::future::join_all((0..64).map(|_| scrapes.text())).await;
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert!(all.iter().all(|text| text.as_ptr() == all[0].as_ptr()), "all share one rendering");
        assert_ne!(all[0], first, "it includes what was counted before the calls");
    }

    #[test]
    fn report_names_the_state_the_tier_and_the_cause() {
        let instance = Instance::new(Clock::System);
        let watch = |tier| TierWatch::new(tier, instance.clone(), Clock::System);
        let (mut store, mut feed) = (watch(Dependency::Store), watch(Dependency::Feed));
        store.observe(Ok(()));
        feed.observe(Ok(()));
        for _ in 0..2 {
            store.observe(Err(StoreError::new(StoreErrorKind::Schema, "no <table>")));
        }
        let report = report(&instance.standing(), BreakerState::HalfOpen, &Clock::System);
        assert_eq!(report["state"], "degraded");
        assert_eq!(report["serving"], true);
        assert_eq!(report["dominant_cause"], json!({"tier": "store", "cause": "schema"}));
        assert_eq!(report["tiers"]["store"]["breaker"], "half_open");
        assert_eq!(report["tiers"]["feed"]["breaker"], Value::Null);
        let page = page(&report);
        assert!(page.contains("no &lt;table&gt;") && !page.contains("no <table>"), "{page}");
        assert!(!page.contains("{state}") && !page.contains("{rows}"), "{page}");
    }
}
