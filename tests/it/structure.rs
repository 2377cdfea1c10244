//! The structure of the source, and what the docs say of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// All files below a folder, with paths from the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let paths = entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().display()));
    paths
        .flat_map(|path| {
            if Path::new(ROOT).join(&path).is_dir() { files(&path) } else { vec![path.into()] }
        })
        .collect()
}

/// The modules of the library, in the order of `lib.rs`.
fn modules() -> Vec<String> {
    let lib = read("src/lib.rs");
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

/// The source without comments and without its unit tests, which stand at its end.
fn code(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file names: `crate::x`, or `x` in a tree `crate::{x, …}`.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        let rest = &code[at + root.len()..];
        let Some(tree) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        names.insert(word(tree));
        for (at, c) in tree.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => drop(names.insert(word(&tree[at + 1..]))),
                _ => {}
            }
        }
    }
    names
}

#[test]
fn module_imports_only_modules_below_it() {
    let modules = modules();
    let place = |name: &str| modules.iter().position(|module| module == name);
    let mut imports = 0;
    for path in files("src") {
        let name = path.iter().nth(1).unwrap().to_str().unwrap();
        let Some(own) = place(name.strip_suffix(".rs").unwrap_or(name)) else { continue };
        // Fixtures and tests of their own may look up.
        let is_test = |part: &str| ["tests", "fixture", "fake", "model", "race"].contains(&part);
        if path.iter().any(|part| is_test(part.to_str().unwrap().trim_end_matches(".rs"))) {
            continue;
        }
        for name in named(&code(&read(&path))) {
            let Some(other) = place(&name) else { continue };
            imports += usize::from(own != other);
            assert!(own <= other, "{} imports `{name}`, which is above it", path.display());
        }
    }
    assert!(imports > 300, "only {imports} imports were found");
}

#[test]
fn every_import_of_a_tree_is_found() {
    let code = "use crate::{\n    a::{B, c::{D}},\n    e,\n};\nlet x = crate::f::G;";
    assert!(
        named(code)
            .into_iter()
            .eq(["a", "e", "f", ""].map(str::to_owned).into_iter().collect::<BTreeSet<_>>())
    );
}

/// What a page names in backticks and is a path of the repository: it has a slash and begins
/// with a folder of the root, or is a file with a known ending.
fn paths(page: &str) -> impl Iterator<Item = &str> {
    let folders =
        ["src", "tests", "benches", "docs", "examples", "proto", "scripts", "migrations", "fuzz"];
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(move |text| {
        let begins = text.split_once('/').is_some_and(|(folder, _)| folders.contains(&folder));
        begins && !text.contains([' ', '*', '{', '<', '…', '$'])
    })
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let mut pages = files("docs");
    pages.retain(|path| path.extension().is_some_and(|it| it == "md"));
    pages.extend(["README.md", "CHANGELOG.md"].map(PathBuf::from));
    let mut checked = 0;
    for page in pages {
        let text = read(&page);
        for path in paths(&text) {
            let exists = Path::new(ROOT).join(path.split(['#', ':']).next().unwrap()).exists();
            assert!(exists, "{} names `{path}`, which does not exist", page.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} paths were found");
}
