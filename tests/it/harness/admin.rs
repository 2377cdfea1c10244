//! What an operator sees: the admin listener, queried over HTTP/1.1.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::eventually;

/// An admin listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin(pub(crate) SocketAddr);

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// All series of one scrape, by name and labels as `/metrics` writes them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Admin {
    pub(crate) async fn get(self, path: &str) -> Answer {
        self.get_accepting(path, "*/*").await
    }

    pub(crate) async fn get_accepting(self, path: &str, accept: &str) -> Answer {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        Answer::read(&text)
    }

    pub(crate) async fn status(self) -> Value {
        serde_json::from_str(&self.get("/status").await.body).unwrap()
    }

    pub(crate) async fn scrape(self) -> Scrape {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200);
        Scrape::read(&answer.body)
    }

    /// The value of one series, with its labels in alphabetical order.
    pub(crate) async fn metric(self, series: &str) -> f64 {
        self.scrape().await.get(series)
    }

    pub(crate) async fn until_metric(self, series: &str, expected: f64) {
        eventually(&format!("{series} is {expected}"), async || {
            same(self.metric(series).await, expected).then_some(())
        })
        .await;
    }

    /// Waits until new checks are welcome.
    pub(crate) async fn until_ready(self) {
        eventually("the service is ready", async || {
            (self.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(header).collect(), body: body.to_owned() }
    }
}

impl Scrape {
    /// Panics on a line that is neither a comment nor a series with a value.
    pub(crate) fn read(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            series
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    (name.to_owned(), value.parse().unwrap())
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.0))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The series of a metric that have changed since an earlier scrape, with
    /// their differences.
    pub(crate) fn changes_since(&self, before: &Self, metric: &str) -> BTreeMap<String, f64> {
        let ours = self.0.iter().filter(|(name, _)| name.split('{').next() == Some(metric));
        ours.map(|(name, now)| (name.clone(), now - before.0.get(name).unwrap_or(&0.0)))
            .filter(|(_, difference)| !same(*difference, 0.0))
            .collect()
    }
}

/// Counts are whole numbers far below 2^53.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

/// Name of a `keystead_checks_total` series.
pub(crate) fn checks_of(surface: &str, code: &str, reason: &str) -> String {
    format!(r#"keystead_checks_total{{code="{code}",reason="{reason}",surface="{surface}"}}"#)
}

/// The same of `keystead.v1.Authz`.
pub(crate) fn checks_total(code: &str, reason: &str) -> String {
    checks_of("authz", code, reason)
}
