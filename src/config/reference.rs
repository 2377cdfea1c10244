//! Renders `docs/configuration.md`.

use std::fmt::Write;

use super::settings::{Section, Setting, Settings};

const INTRODUCTION: &str = include_str!("introduction.md");

/// The reference page. A test keeps `docs/configuration.md` equal to it.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in &Settings::all().sections {
        page.push_str(&rendered_section(section));
    }
    page
}

fn rendered_section(section: &Section) -> String {
    let mut text = format!("\n## `{}`\n\n{}\n", section.key, section.description);
    for setting in &section.settings {
        text.push_str(&rendered_setting(setting));
    }
    text
}

fn rendered_setting(setting: &Setting) -> String {
    let default = setting.default.as_ref().map_or("not set".to_owned(), |d| format!("`{d}`"));
    let mut text = format!(
        "\n### `{}`\n\n| type | default | environment |\n|---|---|---|\n| {} | {default} | `{}` |\n\n{}\n",
        setting.key,
        setting.expected(),
        setting.variable(),
        setting.description,
    );
    for (position, (word, meaning)) in setting.choices().iter().enumerate() {
        let gap = if position == 0 { "\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{gap}- `{word}`: {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn reference_page_is_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = fs::read_to_string(root.join("docs/configuration.md")).unwrap_or_default();
        let rendered = reference();
        if page != rendered {
            fs::create_dir_all(root.join("target")).unwrap();
            fs::write(root.join("target/configuration.md"), rendered).unwrap();
            panic!(
                "docs/configuration.md is not what the code says; bring it up to date with\n\
                 cp target/configuration.md docs/configuration.md"
            );
        }
    }

    #[test]
    fn example_of_the_reference_loads() {
        let example = reference();
        let example = example.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keystead.toml");
        fs::write(&path, example).unwrap();
        let config = Config::load(&Sources::default().with_file(path)).unwrap();
        assert_eq!(config.store.guard.max_in_flight.get(), 16);
    }

    #[test]
    fn every_setting_has_a_description_and_valid_values() {
        for section in &Settings::all().sections {
            assert!(!section.description.is_empty(), "{}", section.key);
        }
        // Intra-doc links work in rustdoc only.
        assert!(!Config::json_schema().contains("[`") && !reference().contains("[`"));
        for setting in Settings::all().iter() {
            assert!(!setting.description.is_empty(), "{}", setting.key);
            assert!(!setting.expected().is_empty(), "{}", setting.key);
            assert!(!setting.expected().contains(&i64::MAX.to_string()), "{}", setting.key);
        }
    }
}
