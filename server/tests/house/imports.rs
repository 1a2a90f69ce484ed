//! No file takes something from a file that takes something from it, by any number of steps.
//!
//! A file *imports* another when its code, tests aside, names a path into it: `crate::store::sqlite`,
//! `super::note`, or `tree::root` where `tree` is its own child. Names taken from an own ancestor do
//! not count: a child is a part of its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{crates, root};

/// A module by its path below the crate's root; the root has no segment.
type Module = Vec<String>;

/// The modules of a crate with their code, those for tests left out.
fn modules(source: &Path) -> BTreeMap<Module, String> {
    let mut modules = BTreeMap::new();
    for name in ["lib.rs", "main.rs"] {
        if source.join(name).is_file() {
            read(&source.join(name), source, &Vec::new(), &mut modules);
        }
    }
    modules
}

fn read(file: &Path, folder: &Path, module: &Module, modules: &mut BTreeMap<Module, String>) {
    let code = without_tests(&without_words(&std::fs::read_to_string(file).unwrap()));
    for child in children(&code) {
        let path = [module.as_slice(), std::slice::from_ref(&child)].concat();
        let file = folder.join(format!("{child}.rs"));
        assert!(file.is_file(), "{} is not found", file.display());
        read(&file, &folder.join(&child), &path, modules);
    }
    modules.insert(module.clone(), code);
}

/// The code with comments, texts and characters blanked out.
fn without_words(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_after_name = kept.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let raw = rest.strip_prefix('r').filter(|_| !is_after_name);
        let raw = raw.map(|after| after.len() - after.trim_start_matches('#').len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw.filter(|hashes| rest[1 + hashes..].starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = 2 + hashes;
            begin + rest[begin..].find(&end).unwrap() + end.len()
        } else if first == '"' {
            let mut is_escaped = false;
            let is_end = |(_, c): &(usize, char)| {
                let ends = *c == '"' && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                ends
            };
            1 + rest[1..].char_indices().find(is_end).unwrap().0 + 1
        } else if let Some(length) = character(rest) {
            length
        } else {
            kept.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        kept.push(' ');
        rest = &rest[length..];
    }
    kept
}

/// The length of a character literal; a lifetime is not one.
fn character(code: &str) -> Option<usize> {
    let inside = code.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        return Some(2 + 1 + escape[1..].find('\'')? + 1);
    }
    let first = inside.chars().next()?;
    inside[first.len_utf8()..]
        .starts_with('\'')
        .then_some(2 + first.len_utf8())
}

/// The code without the items that only tests have.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let attribute = &rest[at..=at + rest[at..].find(']').unwrap()];
        kept.push_str(&rest[..at]);
        rest = &rest[at + attribute.len()..];
        let condition = attribute.split(|c: char| !c.is_alphanumeric() && c != '_');
        if condition.clone().any(|word| word == "test")
            && !condition.clone().any(|word| word == "not")
        {
            rest = &rest[item(rest)..];
        }
    }
    kept + rest
}

/// Where the first item ends: with its block, or with a semicolon before any.
fn item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The names of the modules that code declares in files of their own.
fn children(code: &str) -> Vec<String> {
    let words: Vec<_> = tokens(code).collect();
    let declared = words
        .windows(3)
        .filter(|three| three[0] == "mod" && three[2] == ";");
    declared.map(|three| three[1].to_owned()).collect()
}

/// Names and paths' `::` as they follow each other, and every other sign by itself.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// Every path in code, those in the braces of a `use` included.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let tokens: Vec<_> = tokens(code).collect();
    let is_name = |at: usize| {
        let token = tokens.get(at).copied().unwrap_or_default();
        token.starts_with(|c: char| c.is_alphabetic() || c == '_')
    };
    let mut found = Vec::new();
    // What stands before each brace that is open.
    let mut open: Vec<Option<Vec<&str>>> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => open.push(None),
            "}" => drop(open.pop()),
            _ if is_name(at) && (at == 0 || tokens[at - 1] != "::") => {
                let mut path: Vec<&str> = open.iter().flatten().flatten().copied().collect();
                path.push(tokens[at]);
                let begin = path.len() - 1;
                while tokens.get(at + 1) == Some(&"::") && is_name(at + 2) {
                    at += 2;
                    path.push(tokens[at]);
                }
                if tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2) == Some(&"{") {
                    at += 2;
                    open.push(Some(path[begin..].to_vec()));
                }
                found.push(path);
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The modules that a module imports.
fn imports<'a>(
    module: &Module,
    code: &str,
    modules: &'a BTreeMap<Module, String>,
) -> BTreeSet<&'a Module> {
    let mut imports = BTreeSet::new();
    for path in paths(code) {
        let mut base = module.clone();
        let mut rest = path.as_slice();
        match rest[0] {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" | "super" => {
                while let [first @ ("self" | "super"), after @ ..] = rest {
                    if *first == "super" {
                        base.pop();
                    }
                    rest = after;
                }
            }
            // A path that begins with a child; anything else leads out of the crate or to what a `use` brought.
            child => {
                base.push(child.to_owned());
                if !modules.contains_key(&base) || path.len() < 2 {
                    continue;
                }
                rest = &rest[1..];
            }
        }
        for name in rest {
            base.push((*name).to_owned());
            if !modules.contains_key(&base) {
                base.pop();
                break;
            }
        }
        if module.starts_with(&base) {
            continue;
        }
        imports.extend(modules.get_key_value(&base).map(|(found, _)| found));
    }
    imports
}

/// The modules that lead back to themselves.
fn cycles(modules: &BTreeMap<Module, String>) -> Vec<String> {
    let edges: BTreeMap<_, _> = modules
        .iter()
        .map(|(module, code)| (module, imports(module, code, modules)))
        .collect();
    let reached = |from: &Module| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = edges[from].iter().copied().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(edges[module].iter().copied());
            }
        }
        reached
    };
    let all: BTreeMap<_, _> = modules
        .keys()
        .map(|module| (module, reached(module)))
        .collect();
    let mut found = Vec::new();
    for (from, to) in &edges {
        for to in to.iter().filter(|to| all[**to].contains(*from)) {
            found.push(format!("{} -> {}", from.join("::"), to.join("::")));
        }
    }
    found
}

#[test]
fn no_file_imports_a_file_that_imports_it() {
    for name in crates() {
        let modules = modules(&root().join(&name).join("src"));
        let found = cycles(&modules);
        assert!(
            found.is_empty(),
            "the crate {name} has cycles; move what both need into a file below them:\n{}",
            found.join("\n")
        );
    }
}

#[test]
fn a_cycle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let modules = |a: &str, b: &str| {
        BTreeMap::from([
            (Module::new(), "mod a; mod b;".to_owned()),
            (module("a"), without_tests(&without_words(a))),
            (module("b"), without_tests(&without_words(b))),
        ])
    };
    let uses_a = "use crate::{c, a::{self, A}};";
    for (a, is_cycle) in [
        ("fn f() { super::b::g() }", true),
        ("use super::{Root, b};", true),
        ("use super::Root;", false),
        (
            "// crate::b\nconst TEXT: &str = \"crate::b \\\" crate::b\";",
            false,
        ),
        ("#[cfg(test)] mod tests { use crate::b; }", false),
        ("#[cfg(not(test))] use crate::b;", true),
        ("fn f<'a>(x: &'a str) -> char { 'b' } use b::B;", false),
    ] {
        assert_eq!(!cycles(&modules(a, uses_a)).is_empty(), is_cycle, "{a}");
    }
}
