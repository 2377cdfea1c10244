//! Converts an explanation to its protobuf message.

use std::time::Duration;

use tonic::Code;

use crate::{
    cache::{EntryState, Remembered},
    check::{Decision, Denial},
    explain::{self, Doubts, Explanation, Seen, StoreReply},
    key::{CompactKey, Reading},
    outage::Unavailable,
    store::Answer,
    time::Moment,
    transport::{
        authz::{self, timestamp},
        pb::{
            Agreement, Basis, CredentialKind, ExplainResponse, ExplainedCredential,
            ExplainedDecision, ExplainedDoubts, ExplainedMemory, ExplainedRecord, ExplainedStore,
            MemoryState, StoreAnswer,
        },
        status::{self, Refusal},
    },
};

pub(super) fn of(explanation: &Explanation) -> ExplainResponse {
    let seen = explanation.seen.as_ref();
    ExplainResponse {
        decision: Some(decision(explanation)),
        credential: Some(credential(explanation)),
        memory: seen.map(memory),
        store: seen.map(|seen| store(seen, explanation.by_the_store.as_ref())),
        doubts: Some(doubts(&explanation.doubts)),
        notes: explanation.notes.clone(),
    }
}

fn decision(explanation: &Explanation) -> ExplainedDecision {
    let basis = match explanation.basis {
        explain::Basis::Credential => Basis::Credential,
        explain::Basis::Memory => Basis::Memory,
        explain::Basis::Store => Basis::Store,
        explain::Basis::Nothing => Basis::Nothing,
    };
    let mut explained = match &explanation.decision {
        Ok(Decision::Allow(grant)) => ExplainedDecision {
            code: status::code_name(Code::Ok).to_owned(),
            answer: Some(authz::as_message(grant)),
            ..ExplainedDecision::default()
        },
        Ok(Decision::Deny(denial)) => refused(&Refusal::from(denial)),
        Err(outage) => refused(&Refusal::from(*outage)),
    };
    explained.rule.clone_from(&explanation.rule);
    explained.set_basis(basis);
    explained
}

fn refused(refusal: &Refusal) -> ExplainedDecision {
    ExplainedDecision {
        code: status::code_name(refusal.code).to_owned(),
        reason: refusal.reason.to_owned(),
        message: refusal.message().to_owned(),
        ..ExplainedDecision::default()
    }
}

fn credential(explanation: &Explanation) -> ExplainedCredential {
    let (kind, secret) = match explanation.reading {
        None => (CredentialKind::Missing, None),
        Some(Err(_)) => (CredentialKind::Malformed, None),
        Some(Ok(Reading::Ours { secret, .. })) => (CredentialKind::Ours, Some(secret)),
        Some(Ok(Reading::Foreign { .. })) => (CredentialKind::Foreign, None),
    };
    ExplainedCredential {
        kind: kind.into(),
        secret_fingerprint: secret.map(|secret| secret.to_string()).unwrap_or_default(),
        reading: explanation.reading_in_words().to_owned(),
    }
}

fn memory(seen: &Seen) -> ExplainedMemory {
    let Seen { at, memory, .. } = seen;
    let wall_time = |instant| Some(timestamp(at.wall_at(instant)));
    match &memory.held {
        None => {
            ExplainedMemory { state: MemoryState::Nothing.into(), ..ExplainedMemory::default() }
        }
        Some(Remembered::Absence { validated_at, until, believed, .. }) => {
            let state =
                if *believed { MemoryState::Absent } else { MemoryState::AbsentNotBelieved };
            ExplainedMemory {
                state: state.into(),
                age: since(*at, *validated_at),
                fresh_until: wall_time(*until),
                ..ExplainedMemory::default()
            }
        }
        Some(Remembered::Record {
            known,
            validated_at,
            life,
            windows,
            vouched,
            missing_since,
            ..
        }) => ExplainedMemory {
            state: state(*life, missing_since.is_some()).into(),
            age: since(*at, *validated_at),
            record: Some(record(known)),
            feed_vouches: *vouched,
            fresh_until: wall_time(windows.fresh_until),
            revalidated_until: wall_time(windows.revalidating_until),
            served_until: wall_time(windows.stale_until.max(windows.fresh_until)),
            missing_for: missing_since.and_then(|missing| since(*at, missing)),
        },
    }
}

const fn state(life: EntryState, missing: bool) -> MemoryState {
    match life {
        EntryState::Expired => MemoryState::Expired,
        EntryState::Fresh | EntryState::Revalidating if missing => MemoryState::StaleIfError,
        EntryState::Fresh => MemoryState::Fresh,
        EntryState::Revalidating => MemoryState::Revalidating,
        EntryState::Stale => MemoryState::StaleIfError,
    }
}

fn store(seen: &Seen, alone: Option<&Decision>) -> ExplainedStore {
    let StoreReply { answer, took, .. } = &seen.store;
    let (kind, known) = match answer {
        Ok(Answer::Found(known)) => (StoreAnswer::Found, Some(known)),
        Ok(Answer::Absent(_)) => (StoreAnswer::Absent, None),
        Err(_) => (StoreAnswer::Error, None),
    };
    let failure = answer.as_ref().err();
    let agreement = seen.agreement().map_or(Agreement::Unspecified, |agreement| match agreement {
        explain::Agreement::Same => Agreement::Same,
        explain::Agreement::StoreIsNewer => Agreement::StoreIsNewer,
        explain::Agreement::StoreIsOlder => Agreement::StoreIsOlder,
        explain::Agreement::Different => Agreement::Different,
        explain::Agreement::StoreLacksIt => Agreement::StoreLacksIt,
        explain::Agreement::StoreHasIt => Agreement::StoreHasIt,
    });
    ExplainedStore {
        answer: kind.into(),
        record: known.map(record),
        agreement: agreement.into(),
        cause: failure.map(|it| it.cause.as_str().to_owned()).unwrap_or_default(),
        detail: failure.map(|it| it.detail.clone()).unwrap_or_default(),
        took: duration(*took),
        alone: alone.map(outcome).unwrap_or_default().to_owned(),
    }
}

fn outcome(decision: &Decision) -> &'static str {
    let reason = |denial: &Denial| Refusal::from(denial).reason;
    match decision {
        Decision::Allow(_) => status::code_name(Code::Ok),
        Decision::Deny(denial) => reason(denial),
    }
}

fn doubts(doubts: &Doubts) -> ExplainedDoubts {
    let last = doubts.last_failure.as_ref();
    let cause = last.map(|error| Unavailable::from(error).as_str());
    ExplainedDoubts {
        breaker: doubts.breaker.as_str().to_owned(),
        tried_in: doubts.tried_in.and_then(duration),
        in_doubt: doubts.doubt.is_some(),
        last_failure: cause.unwrap_or_default().to_owned(),
        last_failure_detail: last.map(|error| error.detail().to_owned()).unwrap_or_default(),
        suspect: doubts.suspect,
        changes_applied_until: doubts.changes_until.map(timestamp),
    }
}

fn record(known: &CompactKey) -> ExplainedRecord {
    ExplainedRecord {
        key_id: known.id().to_owned(),
        revision: known.revision().0,
        state: known.state().to_string(),
        principal: known.principal().to_owned(),
        scopes: known.scopes().map(str::to_owned).collect(),
        allowed_networks: known.networks().map(|network| network.to_string()).collect(),
        audiences: known.audiences().map(str::to_owned).collect(),
        not_before: known.not_before().map(timestamp),
        expires_at: known.expires_at().map(timestamp),
    }
}

fn since(now: Moment, then: tokio::time::Instant) -> Option<prost_types::Duration> {
    duration(now.monotonic.saturating_duration_since(then))
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}
