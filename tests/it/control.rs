//! The control listener: which callers are authorized, and what `Explain` says.

mod callers;
mod conduct;
mod states;

use keystead::{
    config::Config,
    key::Rights,
    transport::pb::{
        CheckRequest, ExplainRequest, ExplainResponse, ExplainedDecision, ExplainedMemory,
        ExplainedStore, diagnostics_client::DiagnosticsClient,
    },
};
use prost::Message;
use tonic::{Request, Status, transport::Channel};

use crate::harness::{
    app::{channel_to, presenting},
    backend::Backend,
    fixture::Fixture,
    keys::{Key, of_acme},
    refusal::{Refusal, code_name},
};

/// So many bytes of a key or a digest in a row are a leak.
const WINDOW: usize = 12;

/// A service with a control listener, and the key of an administrator.
struct Control<B> {
    fixture: Fixture<B>,
    admin: Key,
    channel: Channel,
}

fn administrator() -> Rights {
    Rights { scopes: vec!["keystead.admin".to_owned()], ..of_acme() }
}

fn with_control(config: &mut Config) {
    config.listen.control = Some("127.0.0.1:0".parse().unwrap());
    // A busy machine takes its time.
    config.cache.revalidate_wait = std::time::Duration::from_secs(10);
}

impl<B: Backend> Control<B> {
    async fn new(backend: B) -> Self {
        Self::with(backend, |_| ()).await
    }

    async fn with(backend: B, tune: impl FnOnce(&mut Config)) -> Self {
        let fixture = Fixture::with(backend, |config| {
            with_control(config);
            tune(config);
        })
        .await;
        let admin = fixture.keys.create(administrator()).await;
        let (channel, _) = channel_to(fixture.service.control.unwrap()).await;
        Self { fixture, admin, channel }
    }

    /// Explains, as the administrator. Holds that nothing secret is in the answer.
    async fn explain(&self, request: CheckRequest) -> ExplainResponse {
        let text = request.api_key.clone();
        let explained = self.explain_as(Some(&self.admin.text), request).await.unwrap();
        holds_nothing_of(&explained, &text);
        holds_nothing_of(&explained, &self.admin.text);
        explained
    }

    async fn explain_key(&self, key: &Key) -> ExplainResponse {
        let explained = self.explain(presenting(&key.text)).await;
        let bytes = explained.encode_to_vec();
        for digest in [key.digest.as_bytes().as_slice(), key.digest.to_hex().as_bytes()] {
            let leaks = digest.windows(WINDOW).any(|part| holds(&bytes, part));
            assert!(!leaks, "the digest is in {explained:?}");
        }
        explained
    }

    async fn explain_as(
        &self,
        caller: Option<&str>,
        request: CheckRequest,
    ) -> Result<ExplainResponse, Status> {
        explain_over(self.channel.clone(), caller, request).await
    }

    /// Explains and checks, and holds that both say the same.
    async fn agrees(&self, request: CheckRequest) -> ExplainResponse {
        let explained = self.explain(request.clone()).await;
        let decision = decision(&explained);
        match self.fixture.service.check(request).await {
            Ok(mut answer) => {
                assert_eq!((decision.code.as_str(), decision.reason.as_str()), ("OK", ""));
                let mut told = decision.answer.clone().unwrap();
                for answer in [&mut answer, &mut told] {
                    // Some time has passed between the two.
                    answer.evidence.as_mut().unwrap().age = None;
                }
                assert_eq!(told, answer);
            }
            Err(status) => {
                let refusal = Refusal::of(&status);
                assert_eq!(decision.code, code_name(refusal.code), "{explained:?}");
                assert_eq!(decision.reason, refusal.reason, "{explained:?}");
                assert_eq!(decision.message, refusal.message, "{explained:?}");
                assert_eq!(decision.answer, None);
            }
        }
        explained
    }
}

async fn explain_over(
    channel: Channel,
    caller: Option<&str>,
    request: CheckRequest,
) -> Result<ExplainResponse, Status> {
    ask(channel, caller, ExplainRequest { check: Some(request) }).await
}

async fn ask(
    channel: Channel,
    caller: Option<&str>,
    request: ExplainRequest,
) -> Result<ExplainResponse, Status> {
    let mut request = Request::new(request);
    if let Some(key) = caller {
        let value = format!("Bearer {key}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    Ok(DiagnosticsClient::new(channel).explain(request).await?.into_inner())
}

fn decision(explained: &ExplainResponse) -> &ExplainedDecision {
    explained.decision.as_ref().unwrap()
}

fn memory(explained: &ExplainResponse) -> &ExplainedMemory {
    explained.memory.as_ref().unwrap()
}

fn store(explained: &ExplainResponse) -> &ExplainedStore {
    explained.store.as_ref().unwrap()
}

fn holds_nothing_of(explained: &ExplainResponse, key: &str) {
    let bytes = explained.encode_to_vec();
    // What may be displayed is the prefix and the last four.
    let random = key.strip_prefix("ks_live_").unwrap_or(key).as_bytes();
    let secret = &random[..random.len().saturating_sub(4)];
    let leaks = secret.windows(WINDOW).any(|part| holds(&bytes, part));
    assert!(!leaks, "the key is in {explained:?}");
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
