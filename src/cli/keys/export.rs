//! `keystead keys export`

use clap::Args;
use serde::Serialize;

use super::session::{Pages, Session};
use crate::{
    cli::{Failure, GlobalOptions, print_if_read},
    key::KeyRecord,
    store::StoredKey,
};

const EXAMPLES: &str = "\
A line has all that `keys show --json` has, and for an imported key its `sha256`.
Keys that keystead minted have none: their digest is worth nothing without the
secret, and they move with the database and the secret file.

Examples:
  keystead keys export > keys.jsonl
  keystead keys export | jq -c 'select(.sha256)' | keystead keys import - --store sqlite:other.db";

/// Write all keys as JSON lines.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(flatten)]
    record: &'a KeyRecord,
}

pub(super) async fn run(options: &GlobalOptions) -> Result<(), Failure> {
    let session = Session::open(options)?;
    let mut pages = Pages::new(&session, None);
    while let Some(page) = pages.next().await? {
        if !print_if_read(lines(&page)?)? {
            break;
        }
    }
    Ok(())
}

fn lines(page: &[StoredKey]) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    for StoredKey { digest, record } in page {
        let imported = record.secret.is_none();
        let sha256 = imported.then(|| digest.to_hex());
        lines += &serde_json::to_string(&Line { sha256, record })?;
        lines.push('\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::Digest, store::fake};

    #[test]
    fn only_the_digest_of_an_imported_key_is_written() {
        let digest = Digest::sha256_of(b"somewhere else");
        let imported = StoredKey { digest, record: fake::record("acme", 1) };
        let mut minted = imported.clone();
        minted.record.secret = Some("0011223344556677".parse().unwrap());
        let text = lines(&[imported, minted]).unwrap();
        let (first, second) = text.trim_end().split_once('\n').unwrap();
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!(first["sha256"], digest.to_hex());
        assert_eq!(first["principal"], "acme");
        let second: serde_json::Value = serde_json::from_str(second).unwrap();
        assert!(second.get("sha256").is_none());
        assert!(!text[first.to_string().len()..].contains(&digest.to_hex()));
    }
}
