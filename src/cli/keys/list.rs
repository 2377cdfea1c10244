//! `keystead keys list`

use std::cmp::Reverse;

use clap::Args;

use super::{
    session::{Pages, Session},
    text::table,
};
use crate::{
    cli::{Failure, GlobalOptions, note, print},
    key::{Fingerprint, KeyRecord},
};

const EXAMPLES: &str = "\
With --json, stdout has one array with a record on each line; `keystead keys
export` writes JSON lines.

Examples:
  keystead keys list --principal acme
  keystead keys list --secret 0123456789abcdef    keys that an old secret minted
  keystead keys list --json | jq -r '.[] | select(.state == \"disabled\") | .id'";

/// List keys.
///
/// All of them, the newest first, unless they are narrowed down. The table has 100
/// columns and cuts what does not fit; `keys show` and --json cut nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Only keys of this principal.
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only keys that were minted with the secret of this fingerprint.
    #[arg(long, value_name = "FINGERPRINT", value_parser = str::parse::<Fingerprint>)]
    secret: Option<Fingerprint>,
}

pub(super) async fn run(args: &ListArgs, options: &GlobalOptions) -> Result<(), Failure> {
    let session = Session::open(options)?;
    let mut pages = Pages::new(&session, args.principal.clone());
    let mut records = Vec::new();
    while let Some(page) = pages.next().await? {
        let page = page.into_iter().map(|key| key.record);
        records.extend(page.filter(|record| args.wants(record)));
    }
    // Pages come in the order of the ids, which keys of one moment keep.
    records.sort_by_key(|record| Reverse(record.created_at));
    if options.json {
        return print(array(&records)?);
    }
    if records.is_empty() {
        note("there are no such keys; `keystead keys create --principal NAME` mints one");
    }
    print(table(&records, session.by.at))
}

impl ListArgs {
    fn wants(&self, record: &KeyRecord) -> bool {
        self.secret.is_none_or(|secret| record.secret == Some(secret))
    }
}

/// A JSON array with a record on each line.
fn array(records: &[KeyRecord]) -> Result<String, serde_json::Error> {
    let lines = records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fake::record;

    #[test]
    fn json_is_an_array_with_a_record_on_each_line() {
        let text = array(&[record("a", 1), record("b", 2), record("c", 3)]).unwrap();
        let records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let principals: Vec<_> = records.iter().map(|record| &record["principal"]).collect();
        assert_eq!(principals, ["a", "b", "c"]);
        assert_eq!(text.lines().count(), 5);
        assert_eq!(array(&[]).unwrap(), "[]\n");
    }
}
