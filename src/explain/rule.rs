//! The rule that decided, as a sentence with the values that it compared.

use std::fmt::Display;

use crate::{
    check::{Decision, Needs, Reason, missing_scopes},
    key::{CompactKey, Fault, Reading},
    outage::Unavailable,
    store::Answer,
    tier::{Freshness, Observation},
    time::Moment,
};

/// Why the decision is as it is. `found` is what it was made from.
pub(super) fn of(
    decision: &Result<Decision, Unavailable>,
    found: Option<&Observation>,
    needs: Needs<'_>,
    now: Moment,
) -> String {
    let record = found.and_then(|observation| match &observation.answer {
        Answer::Found(known) => Some(known),
        Answer::Absent(_) => None,
    });
    match (decision, record) {
        (Err(cause), _) => outage(*cause),
        (Ok(Decision::Allow(grant)), _) => allowed(grant.freshness).to_owned(),
        (Ok(Decision::Deny(denial)), Some(record)) => {
            speaks_against(denial.reason(), record, needs, now)
        }
        (Ok(Decision::Deny(_)), None) => "the store said that there is no such key".to_owned(),
    }
}

/// How a credential was parsed.
pub(super) const fn reading(reading: Option<&Result<Reading, Fault>>) -> &'static str {
    match reading {
        None => "`api_key` is empty: no lookup is made",
        Some(Ok(Reading::Ours { .. })) => {
            "its tag was made with one of our secrets: it is looked up by its keyed digest"
        }
        Some(Ok(Reading::Foreign { .. })) => {
            "it does not claim to be ours: it is looked up by its SHA-256, as an imported key"
        }
        Some(Err(Fault::Empty)) => "it is empty: no lookup is made",
        Some(Err(Fault::TooLong)) => "it is longer than 512 bytes: no lookup is made",
        Some(Err(Fault::NotVisible)) => {
            "it holds a space or another byte outside visible ASCII: no lookup is made"
        }
        Some(Err(Fault::Form)) => {
            "it begins with our prefix but is not of our form, as when it was cut off: no lookup is \
             made"
        }
        Some(Err(Fault::Tag)) => {
            "it has our form, but its tag was made with none of the secrets in `keys.secret_file`: it \
             was mistyped or made up, or its secret was removed; no lookup is made"
        }
        Some(Err(Fault::Foreign)) => {
            "it does not begin with our prefix, and `keys.accept_imported` is false: no lookup is made"
        }
    }
}

const fn allowed(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh | Freshness::Revalidating => {
            "the key is active and within its time, and nothing that is needed is missing"
        }
        Freshness::StaleIfError => {
            "the key is active and within its time by a record that the store could not confirm \
             again, and nothing that is needed is missing"
        }
    }
}

pub(super) fn outage(cause: Unavailable) -> String {
    match cause {
        Unavailable::Store(kind) => format!(
            "nothing in memory may be served, and the store gave no answer ({kind}): nothing is known \
             of the key"
        ),
        Unavailable::BreakerOpen => "nothing in memory may be served, and the breaker before the \
             store is open: nothing is known of the key"
            .to_owned(),
        Unavailable::Suspect => {
            "the store says that there is no such key, and is not believed: keys \
             that it should have are missing as well, or this one was known valid"
                .to_owned()
        }
        Unavailable::SecretUnknown => {
            "its tag was made with none of the secrets in `keys.secret_file`, but the store has keys \
             of a secret that is not in there, or has not told yet whether it has"
                .to_owned()
        }
        Unavailable::Overloaded | Unavailable::Draining | Unavailable::Internal => {
            cause.to_string()
        }
    }
}

/// Which part of a record failed the request.
fn speaks_against(reason: Reason, record: &CompactKey, needs: Needs<'_>, now: Moment) -> String {
    match reason {
        Reason::KeyRevoked | Reason::KeyDisabled => {
            let (state, revision) = (record.state(), record.revision());
            format!("the record says state={state} (revision {revision})")
        }
        Reason::KeyExpired => {
            let end = shown(record.expires_at());
            format!("the record says expires_at={end}, and it is {}", now.wall)
        }
        Reason::KeyNotYetValid => {
            let start = shown(record.not_before());
            format!("the record says not_before={start}, and it is {}", now.wall)
        }
        Reason::ScopeMissing => {
            let missing = listed(missing_scopes(record, needs));
            format!("not granted is {missing}; granted is {}", listed(record.scopes()))
        }
        Reason::ClientNetworkForbidden => {
            let from = needs.client_ip.map_or("not told".to_owned(), |ip| format!("`{ip}`"));
            format!("client_ip is {from}; allowed is {}", listed(record.networks()))
        }
        Reason::AudienceForbidden => {
            let told = needs.audience.map_or("not told".to_owned(), |name| format!("`{name}`"));
            format!("audience is {told}; allowed is {}", listed(record.audiences()))
        }
        // Found without a record.
        Reason::CredentialMissing | Reason::CredentialMalformed | Reason::KeyUnknown => {
            String::new()
        }
    }
}

fn shown(time: Option<impl Display>) -> String {
    time.map_or("never".to_owned(), |time| time.to_string())
}

fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("`{item}`")).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
