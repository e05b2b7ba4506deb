//! Data on standard output, in the form that was asked for.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::{CommandError, ErrorKind};

/// Version of the JSON documents.
pub const API_VERSION: &str = "spilo/v1";

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    #[default]
    Table,
    /// The table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl OutputFormat {
    /// Whether a program reads it.
    pub fn is_for_programs(self) -> bool {
        matches!(self, OutputFormat::Json | OutputFormat::Yaml)
    }
}

/// Data that can be shown in every form.
pub trait Shown: Serialize {
    /// The document's `kind`.
    const KIND: &'static str;

    /// The form for people.
    fn text(&self, wide: bool) -> String;
}

/// Shows data on standard output.
pub fn show<T: Shown>(format: OutputFormat, data: &T) -> Result<(), CommandError> {
    print(&render(format, data)?)
}

fn render<T: Shown>(format: OutputFormat, data: &T) -> Result<String, CommandError> {
    let unwritable = |error: &dyn std::error::Error| CommandError::new(ErrorKind::Failed, format!("cannot write the output: {error}"));
    match format {
        OutputFormat::Table => Ok(data.text(false)),
        OutputFormat::Wide => Ok(data.text(true)),
        OutputFormat::Json => serde_json::to_string_pretty(&document(data)?).map_err(|error| unwritable(&error)),
        OutputFormat::Yaml => serde_saphyr::to_string(&document(data)?).map_err(|error| unwritable(&error)),
    }
}

/// The document for programs: `apiVersion` and `kind` first, then the data's own keys; a list becomes `items`.
fn document<T: Shown>(data: &T) -> Result<Value, CommandError> {
    let value = serde_json::to_value(data).map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    let mut document = json!({ "apiVersion": API_VERSION, "kind": T::KIND });
    let keys = document.as_object_mut().expect("it was made as an object");
    match value {
        Value::Object(own) => keys.extend(own),
        items => {
            keys.insert("items".to_owned(), items);
        }
    }
    Ok(document)
}

/// Writes text to standard output, with one line break at its end. A reader that closed its end (`| head`) has seen enough.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::new(ErrorKind::Failed, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A table without lines: upper-case headers, columns two blanks apart.
pub fn table<const N: usize>(headers: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headers);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Names(Vec<&'static str>);

    impl Shown for Names {
        const KIND: &'static str = "NameList";

        fn text(&self, wide: bool) -> String {
            if wide { format!("{:?}", self.0) } else { self.0.join(" ") }
        }
    }

    #[test]
    fn documents_begin_with_version_and_kind() {
        let json = render(OutputFormat::Json, &Names(vec!["a"])).unwrap();
        assert_eq!(json, "{\n  \"apiVersion\": \"spilo/v1\",\n  \"kind\": \"NameList\",\n  \"items\": [\n    \"a\"\n  ]\n}");
        let yaml = render(OutputFormat::Yaml, &Names(vec!["a"])).unwrap();
        assert!(yaml.starts_with("apiVersion: spilo/v1\nkind: NameList\nitems:\n"), "{yaml}");
    }

    #[test]
    fn tables_have_no_lines_and_no_trailing_blanks() {
        let text = table(["NAME", "ROLE"], [["orders-1".to_owned(), "leader".to_owned()], ["o".to_owned(), "-".to_owned()]]);
        assert_eq!(text, "NAME      ROLE\norders-1  leader\no         -\n");
    }
}
