//! `keystead keys list`

use clap::Args;

use super::{
    session::{Pages, Session},
    text::Table,
};
use crate::{
    cli::{Failure, GlobalOptions, note, print, print_if_read},
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
/// All of them, in the order of their ids, unless they are narrowed down. A key
/// whose time is over is `expired` beside its state.
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
    let mut writer = Writer::new(options.json);
    let mut any = false;
    while let Some(page) = pages.next().await? {
        let records: Vec<_> =
            page.into_iter().map(|key| key.record).filter(|record| args.wants(record)).collect();
        any |= !records.is_empty();
        if !print_if_read(writer.page(&records, session.by.at)?)? {
            return Ok(());
        }
    }
    if !any && !options.json {
        note("there are no such keys; `keystead keys create --principal NAME` mints one");
    }
    print(writer.end())
}

impl ListArgs {
    fn wants(&self, record: &KeyRecord) -> bool {
        self.secret.is_none_or(|secret| record.secret == Some(secret))
    }
}

/// Records as a table, or as a JSON array with one of them on each line.
enum Writer {
    Table(Table),
    Json {
        /// Whether there is a record yet.
        begun: bool,
    },
}

impl Writer {
    const fn new(as_json: bool) -> Self {
        if as_json { Self::Json { begun: false } } else { Self::Table(Table::new()) }
    }

    fn page(
        &mut self,
        records: &[KeyRecord],
        now: jiff::Timestamp,
    ) -> Result<String, serde_json::Error> {
        match self {
            Self::Table(table) => Ok(table.page(records, now)),
            Self::Json { begun } => {
                let mut lines = String::new();
                for record in records {
                    lines += if *begun { ",\n" } else { "[\n" };
                    lines += &serde_json::to_string(record)?;
                    *begun = true;
                }
                Ok(lines)
            }
        }
    }

    const fn end(&self) -> &'static str {
        match self {
            Self::Table(_) => "",
            Self::Json { begun: false } => "[]\n",
            Self::Json { begun: true } => "\n]\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::fake::record;

    #[test]
    fn json_is_one_array_however_many_pages_there_are() {
        let pages = [vec![record("a", 1), record("b", 2)], vec![], vec![record("c", 3)]];
        let mut writer = Writer::new(true);
        let mut text = String::new();
        for page in &pages {
            text += &writer.page(page, Timestamp::UNIX_EPOCH).unwrap();
        }
        text += writer.end();
        let records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let principals: Vec<_> = records.iter().map(|record| &record["principal"]).collect();
        assert_eq!(principals, ["a", "b", "c"]);
        assert_eq!(text.lines().count(), 5);
        assert_eq!(Writer::new(true).end(), "[]\n");
    }
}
