//! Holds that no parser takes longer for a byte the more of them there are, in
//! instructions, which are the same on a busy machine.
//!
//! ```text
//! cargo bench --bench hostile
//! ```
//!
//! Each input is a piece that is repeated: separators, as a client may send them.
//! Envoy's call, or a `Check`, is answered with it, with a key and without, from the message
//! to the trailers. The program runs itself under callgrind with [`PARTS`] short inputs and
//! with one that is as long as all of them: where time is linear in the length, both
//! take the same.

#[path = "suite/callgrind.rs"]
mod callgrind;
#[expect(dead_code, reason = "benches/tiers.rs needs the rest")]
#[path = "suite/in_process.rs"]
mod in_process;
#[expect(dead_code, reason = "the other benchmarks need the rest")]
#[path = "suite/typical.rs"]
mod typical;

use std::{env, error::Error, fmt::Write as _, process::ExitCode};

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::{CheckRequest, attribute_context::HttpRequest},
};
use keystead::transport::{CredentialSources, pb};
use prost::Message;

use self::in_process::{Call, InProcess};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Where a client puts a piece over and over.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The value of a header.
    Header(&'static str),
    /// As many headers of this name.
    Headers(&'static str),
    /// The query.
    Query,
    /// The scopes that a route needs.
    Scopes,
    /// As many context extensions of this name.
    Extensions(&'static str),
    /// As many names of a query parameter, each spelled in another way.
    Spellings,
    /// The key of a `Check`, in front of the key.
    CheckKey,
    /// As many scopes that a `Check` requires.
    CheckScopes,
    /// The address of the client of a `Check`.
    CheckClient,
}

const INPUTS: [(&str, Place, &str); 31] = [
    ("cookie-commas", Place::Header("cookie"), ","),
    ("cookie-semicolons", Place::Header("cookie"), ";"),
    ("cookie-equals", Place::Header("cookie"), "="),
    ("cookie-spaces", Place::Header("cookie"), " "),
    ("cookie-quotes", Place::Header("cookie"), "=\","),
    ("cookie-named", Place::Header("cookie"), "k=;"),
    ("cookie-begun", Place::Header("cookie"), "k=,"),
    ("cookie-blank", Place::Header("cookie"), "k= \t ,"),
    ("cookie-many", Place::Headers("cookie"), "k="),
    ("query-ampersands", Place::Query, "&"),
    ("query-equals", Place::Query, "="),
    ("query-marks", Place::Query, "?"),
    ("query-percents", Place::Query, "%"),
    ("query-named", Place::Query, "key-of-the-api=&"),
    ("query-spellings", Place::Spellings, ""),
    ("forwarded-commas", Place::Header("x-forwarded-for"), ","),
    ("forwarded-spaces", Place::Header("x-forwarded-for"), " ,\t"),
    ("forwarded-many", Place::Headers("x-forwarded-for"), "::1"),
    ("authorization-commas", Place::Header("authorization"), ","),
    ("authorization-schemes", Place::Header("authorization"), "Bearer ,"),
    ("authorization-spaces", Place::Header("authorization"), "Bearer "),
    ("key-commas", Place::Header("x-api-key"), ","),
    ("accept-commas", Place::Header("accept"), ","),
    ("accept-qualities", Place::Header("accept"), ";q=0"),
    ("scopes-spaces", Place::Scopes, "a "),
    ("extensions-many", Place::Extensions("keystead.scopes"), "a"),
    ("check-key-spaces", Place::CheckKey, " "),
    ("check-key-schemes", Place::CheckKey, "Bearer "),
    ("check-scopes-many", Place::CheckScopes, "a"),
    ("check-client-colons", Place::CheckClient, ":"),
    ("check-client-zeros", Place::CheckClient, "0"),
];

/// A name of a query parameter with more spellings than fit.
const PARAMETER: &str = "key-of-the-api";

/// How many bytes the long input has: as many as Envoy takes of headers.
const LONG: usize = 60 * 1024;
const PARTS: usize = 8;

/// How many instructions the long input may take more than the short ones of the same
/// length together, in percent. Growing with the square, it would be 700.
const MAX_MORE_PERCENT: u64 = 25;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => hold(),
        [name, parts] => under_callgrind(name, parts).map(|()| true),
        _ => Err("it takes no arguments".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("what hostile inputs cost cannot be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts, prints, and says whether all bounds hold.
fn hold() -> Result<bool> {
    let collected = |name: &str, parts: usize| callgrind::collected([name, &parts.to_string()]);
    let none = collected("none", 0)?;
    let mut linear = true;
    println!("input | instructions a byte, {PARTS} short ones | one long one | more, % | bound, %");
    println!("------|------------------------------|--------------|---------|---------");
    for (name, ..) in INPUTS {
        let instructions =
            |parts| Ok::<_, Box<dyn Error + Send + Sync>>(collected(name, parts)? - none);
        let (short, long) = (instructions(PARTS)?, instructions(1)?);
        let more = long.saturating_sub(short) * 100 / short;
        let a_byte = |instructions| instructions / LONG as u64;
        println!("{name} | {} | {} | {more} | {MAX_MORE_PERCENT}", a_byte(short), a_byte(long));
        if more > MAX_MORE_PERCENT {
            eprintln!("{name} takes {more} % more in one piece: its time is not linear");
            linear = false;
        }
    }
    Ok(linear)
}

/// Answers the input in so many parts.
fn under_callgrind(name: &str, parts: &str) -> Result<()> {
    let parts: usize = parts.parse()?;
    let stand = InProcess::with(|config| {
        let sources =
            ["authorization:Bearer", "header:x-api-key", "cookie:k", "query:key-of-the-api"];
        let sources = CredentialSources::try_from(sources.map(str::to_owned).to_vec());
        config.credential.sources = sources.expect("good sources");
        config.ext_authz.remove_credential = true;
        config.ext_authz.trusted_hops = 1;
    })?;
    let input = INPUTS.iter().find(|(known, ..)| *known == name);
    for _ in 0..parts {
        let (_, place, piece) = input.ok_or("there is no such input")?;
        for key in ["", stand.key.as_str()] {
            let (call, message) = match place.check(piece, LONG / parts, key) {
                Some(message) => (Call::Check, message),
                None => (Call::ExtAuthz, place.filled(piece, LONG / parts, key)),
            };
            let status = stand.status_of(call, InProcess::request_of(call, &message));
            // OK, INVALID_ARGUMENT or UNAUTHENTICATED.
            let is_answered = [&b"0"[..], b"3", b"16"].contains(&&*status.unwrap_or_default());
            assert!(is_answered, "{call:?}");
        }
    }
    // What is left over would take instructions to be dropped.
    std::process::exit(0)
}

impl Place {
    /// The message of a `Check`, if that is where the pieces are.
    fn check(self, piece: &str, bytes: usize, key: &str) -> Option<Vec<u8>> {
        let repeated = piece.repeat(bytes / piece.len().max(1));
        let mut message = pb::CheckRequest { api_key: key.to_owned(), ..Default::default() };
        match self {
            Self::CheckKey => message.api_key = repeated + key,
            Self::CheckScopes => message.required_scopes = vec![piece.to_owned(); bytes / 3],
            Self::CheckClient => message.client_ip = repeated,
            _ => return None,
        }
        Some(message.encode_to_vec())
    }

    /// A message with so many bytes of pieces in it, and a key where it is looked for
    /// first, unless that is the place.
    fn filled(self, piece: &str, bytes: usize, key: &str) -> Vec<u8> {
        let repeated = piece.repeat(bytes / piece.len().max(1));
        let mut message = CheckRequest::default();
        let attributes = message.attributes.get_or_insert_default();
        let mut http = HttpRequest { path: "/".to_owned(), ..HttpRequest::default() };
        let mut headers = HeaderMap::default();
        let mut header = |name: &str, value: &[u8]| {
            headers.headers.push(HeaderValue {
                key: name.to_owned(),
                raw_value: value.to_owned(),
                ..HeaderValue::default()
            });
        };
        if !key.is_empty() {
            header("authorization", format!("Bearer {key}").as_bytes());
        }
        match self {
            Self::Header(name) => header(name, repeated.as_bytes()),
            Self::Headers(name) => {
                (0..bytes / (name.len() + piece.len()))
                    .for_each(|_| header(name, piece.as_bytes()));
            }
            Self::Query => http.path = format!("/?{repeated}"),
            Self::Spellings => http.path = format!("/?{}", spellings(bytes)),
            Self::Scopes => {
                attributes.context_extensions.insert("keystead.scopes".to_owned(), repeated);
            }
            Self::Extensions(_) | Self::CheckKey | Self::CheckScopes | Self::CheckClient => {}
        }
        http.header_map = Some(headers);
        attributes.request.get_or_insert_default().http = Some(http);
        let mut message = message.encode_to_vec();
        if let Self::Extensions(name) = self {
            // An entry of the map, in a message of its own, which is added.
            let mut entry = CheckRequest::default();
            let attributes = entry.attributes.get_or_insert_default();
            attributes.context_extensions.insert(name.to_owned(), piece.to_owned());
            let entry = entry.encode_to_vec();
            message.extend(entry.repeat(bytes / entry.len()));
        }
        message
    }
}

/// Parameters of one name, no two spelled alike.
fn spellings(bytes: usize) -> String {
    let mut query = String::new();
    for number in 0_u32.. {
        if query.len() >= bytes {
            break;
        }
        for (place, letter) in PARAMETER.bytes().enumerate() {
            if number >> place & 1 == 1 {
                let _ = write!(query, "%{letter:02x}");
            } else {
                query.push(letter.into());
            }
        }
        query.push_str("=&");
    }
    query
}
