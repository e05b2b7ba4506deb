//! Reads one Rust source: every path it names, outside comments, strings and code that only tests compile.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, Ident, LexError, TokenStream, TokenTree};

/// A path as it is written, such as `super::view::View`; a lone word is a path of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub line: usize,
    pub segments: Vec<String>,
    /// The module it is written in, below the crate's root.
    pub module: Vec<String>,
}

impl Path {
    /// Where it leads, below the crate's root: `None` for a path that starts elsewhere (another crate, a local name).
    pub fn within_crate(&self) -> Option<Vec<String>> {
        let mut base = self.module.clone();
        let mut rest = self.segments.as_slice();
        match rest.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop()?;
            }
            _ => return None,
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// What one file names.
#[derive(Debug, Default)]
pub struct Source {
    pub paths: Vec<Path>,
    /// Modules declared under `#[cfg(test)]` that live in files of their own.
    pub test_modules: Vec<Vec<String>>,
}

/// Reads `text`, the file of the module `module`.
pub fn read(text: &str, module: &[String]) -> Result<Source, LexError> {
    let mut source = Source::default();
    source.walk(TokenStream::from_str(text)?, module);
    Ok(source)
}

impl Source {
    fn walk(&mut self, stream: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at, module);
        }
    }

    /// Takes what starts at `at`, answers where the next thing starts.
    fn step(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> usize {
        if let Some(end) = self.test_only_item(tokens, at, module) {
            return end;
        }
        if let Some((name, body)) = inline_module(&tokens[at..]) {
            self.walk(body.stream(), &child(module, &name.to_string()));
            return at + 3;
        }
        match &tokens[at] {
            // The path in `pub(in crate::agent)` says who may see it; it uses nothing.
            TokenTree::Ident(word) if word == "pub" => at + 1 + usize::from(is_group(tokens.get(at + 1), Delimiter::Parenthesis)),
            TokenTree::Ident(_) => self.path(tokens, at, &[], module),
            TokenTree::Group(group) => {
                self.walk(group.stream(), module);
                at + 1
            }
            _ => at + 1,
        }
    }

    /// Takes a path with everything its braces hold; `prefix` is what stands before the braces it is in.
    fn path(&mut self, tokens: &[TokenTree], start: usize, prefix: &[String], module: &[String]) -> usize {
        let (mut at, mut segments) = (start, prefix.to_vec());
        let line = tokens[start].span().start().line;
        while let Some(TokenTree::Ident(word)) = tokens.get(at) {
            segments.push(plain(word));
            at += 1;
            if !is_path_separator(&tokens[at..]) {
                break;
            }
            at += 2;
            if let Some(TokenTree::Group(group)) = tokens.get(at).filter(|token| is_group(Some(token), Delimiter::Brace)) {
                self.branches(group, &segments, module);
                return at + 1;
            }
        }
        if !prefix.is_empty() && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        self.paths.push(Path { line, segments, module: module.to_vec() });
        at
    }

    /// The branches of a `use` tree.
    fn branches(&mut self, group: &Group, prefix: &[String], module: &[String]) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        for branch in tokens.split(|token| is_punct(Some(token), ',')).filter(|branch| !branch.is_empty()) {
            match &branch[0] {
                TokenTree::Ident(_) => {
                    self.path(branch, 0, prefix, module);
                }
                star => self.paths.push(Path { line: star.span().start().line, segments: prefix.to_vec(), module: module.to_vec() }),
            }
        }
    }

    /// Where the item ends that `#[cfg(test)]` at `at` makes a test's own; remembers it when it is a module in another file.
    fn test_only_item(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> Option<usize> {
        let mut end = at + attribute(&tokens[at..]).filter(|text| is_cfg_test(text)).map(|_| 2)?;
        while attribute(&tokens[end..]).is_some() {
            end += 2;
        }
        let item = end;
        while !is_punct(tokens.get(end), ';') && !is_group(tokens.get(end), Delimiter::Brace) && end < tokens.len() {
            end += 1;
        }
        if is_punct(tokens.get(end), ';') {
            self.test_modules.extend(declared_module(&tokens[item..end]).map(|name| child(module, &name)));
        }
        Some((end + 1).min(tokens.len()))
    }
}

fn child(module: &[String], name: &str) -> Vec<String> {
    [module, &[name.to_owned()]].concat()
}

fn plain(word: &Ident) -> String {
    let text = word.to_string();
    text.strip_prefix("r#").unwrap_or(&text).to_owned()
}

/// `mod name { … }` at the start of `tokens`.
fn inline_module(tokens: &[TokenTree]) -> Option<(&Ident, &Group)> {
    match tokens {
        [TokenTree::Ident(keyword), TokenTree::Ident(name), TokenTree::Group(body), ..] if keyword == "mod" => Some((name, body)),
        _ => None,
    }
}

/// The name in `mod name`, whatever visibility stands before it.
fn declared_module(tokens: &[TokenTree]) -> Option<String> {
    match tokens {
        [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] if keyword == "mod" => Some(plain(name)),
        _ => None,
    }
}

/// The text inside `#[…]` at the start of `tokens`, without blanks.
fn attribute(tokens: &[TokenTree]) -> Option<String> {
    match tokens {
        [hash, TokenTree::Group(group), ..] if is_punct(Some(hash), '#') && group.delimiter() == Delimiter::Bracket => {
            Some(group.stream().to_string().split_whitespace().collect())
        }
        _ => None,
    }
}

fn is_cfg_test(attribute: &str) -> bool {
    attribute == "cfg(test)" || attribute.starts_with("cfg(all(test,")
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_group(token: Option<&TokenTree>, wanted: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == wanted)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Vec<String> {
        path.split("::").map(str::to_owned).collect()
    }

    /// The paths within the crate, as `line path`.
    fn used(text: &str, at: &str) -> Vec<String> {
        let source = read(text, &module(at)).expect("the text is Rust");
        source
            .paths
            .iter()
            .filter(|path| path.segments.len() > 1 || path.segments[0] != "self")
            .filter_map(|path| path.within_crate().map(|to| format!("{} {}", path.line, to.join("::"))))
            .collect()
    }

    #[test]
    fn a_use_tree_is_taken_apart_branch_by_branch() {
        let text = "use crate::{\n    model::{Lsn, self},\n    dcs::snapshot::*,\n    sys as machine,\n};";
        assert_eq!(used(text, "agent"), ["2 model::Lsn", "2 model", "3 dcs::snapshot", "4 sys"]);
    }

    #[test]
    fn relative_paths_are_followed_to_where_they_lead() {
        let text = "use super::super::dcs::etcd;\nfn f() { self::inner::g(); super::view::V::new(); }";
        assert_eq!(used(text, "agent::decide"), ["1 dcs::etcd", "2 agent::decide::inner::g", "2 agent::view::V::new"]);
    }

    #[test]
    fn an_inline_module_is_one_step_deeper() {
        assert_eq!(used("mod inner { use super::super::Other; }", "dcs::etcd"), ["1 dcs::Other"]);
    }

    #[test]
    fn bodies_types_and_macros_are_read_too() {
        let text = "fn f(x: &crate::sys::Clock) -> Vec<crate::model::Lsn> {\n    format!(\"{}\", crate::cli::word())\n}";
        assert_eq!(used(text, "dcs"), ["1 sys::Clock", "1 model::Lsn", "2 cli::word"]);
    }

    #[test]
    fn comments_and_strings_use_nothing() {
        let text = "//! [`crate::cli`]\n/// crate::cli::main\n/* crate::cli */\nconst A: &str = \"crate::cli::x\";\nconst B: &str = r#\"use crate::cli;\"#;";
        assert_eq!(used(text, "model"), [""; 0]);
    }

    #[test]
    fn what_only_tests_compile_is_left_out_and_what_follows_is_not() {
        let text = "#[cfg(test)]\nuse crate::{cli::a, cli::b};\n#[cfg(test)]\n#[allow(dead_code)]\nmod tests { use crate::cli::c; }\nuse crate::cli::seen;";
        assert_eq!(used(text, "model"), ["6 cli::seen"]);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_remembered() {
        let source = read("#[cfg(test)]\npub(crate) mod builders;\nmod real;", &module("agent::decide")).expect("the text is Rust");
        assert_eq!(source.test_modules, [module("agent::decide::builders")]);
    }

    #[test]
    fn visibility_uses_nothing() {
        assert_eq!(used("pub(in crate::agent) fn f() {}\npub(crate) struct S;\npub(super) struct T;", "agent::decide"), [""; 0]);
    }
}
