//! The build file of the image that every container of a cluster runs.

use handlebars::{Handlebars, no_escape};
use serde::Serialize;

/// The number of the user and the group `postgres`, the same in every image.
pub const POSTGRES_UID: u32 = 10432;

/// The template, compiled in so that a binary alone can build its image.
const TEMPLATE: &str = include_str!("../../docker/Dockerfile.hbs");

/// What the build file depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The image to build on.
    pub base: &'static str,
    /// PostgreSQL's major version.
    pub postgres: u8,
    /// The version of our own binary.
    pub version: &'static str,
    /// Whether PostgreSQL comes from its own package archive because the base's Debian does not carry this version.
    pub pgdg: bool,
    /// Whether our own binary is compiled in a stage of its own.
    pub from_source: bool,
}

#[derive(Serialize)]
struct Context<'a> {
    base: &'a str,
    postgres: u8,
    version: &'a str,
    pgdg: bool,
    from_source: bool,
    uid: u32,
}

/// The text of the build file.
pub fn render_dockerfile(dockerfile: &Dockerfile) -> String {
    let mut engine = Handlebars::new();
    engine.register_escape_fn(no_escape);
    engine.set_strict_mode(true);
    let Dockerfile { base, postgres, version, pgdg, from_source } = *dockerfile;
    let context = Context { base, postgres, version, pgdg, from_source, uid: POSTGRES_UID };
    engine.render_template(TEMPLATE, &context).expect("the template is compiled in and its context has every field")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dockerfile(postgres: u8, pgdg: bool, from_source: bool) -> String {
        render_dockerfile(&Dockerfile { base: "debian:trixie-slim", postgres, version: "1.2.3", pgdg, from_source })
    }

    #[test]
    fn the_usual_image_takes_debians_postgres_and_the_binary_from_the_context() {
        let text = dockerfile(17, false, false);
        assert!(text.starts_with("FROM debian:trixie-slim\n"), "{text}");
        assert!(text.contains("postgresql-17 etcd-server haproxy ca-certificates"), "{text}");
        assert!(text.contains("COPY spilo /usr/bin/spilo"), "{text}");
        assert!(!text.contains("pgdg") && !text.contains("cargo"), "{text}");
    }

    #[test]
    fn other_versions_come_from_postgres_own_archive() {
        let text = dockerfile(16, true, false);
        assert!(text.contains("apt.postgresql.org.sh -y; \\\n"), "{text}");
        assert!(text.contains("/usr/lib/postgresql/16/bin"), "{text}");
    }

    #[test]
    fn from_source_the_binary_comes_from_a_stage_of_its_own() {
        let text = dockerfile(17, false, true);
        assert!(text.starts_with("FROM rust:"), "{text}");
        assert!(text.contains("COPY --from=compiled"), "{text}");
        assert!(!text.contains("COPY spilo"), "{text}");
    }

    #[test]
    fn the_account_is_made_before_the_packages_are_installed() {
        let text = dockerfile(17, false, false);
        assert!(text.find("useradd").unwrap() < text.find("apt-get install").unwrap());
    }

    #[test]
    fn every_continued_line_is_followed_by_another() {
        for (pgdg, from_source) in [(false, false), (true, false), (false, true), (true, true)] {
            let text = dockerfile(16, pgdg, from_source);
            for (line, next) in text.lines().zip(text.lines().skip(1)) {
                assert!(!line.ends_with('\\') || !next.trim().is_empty(), "'{line}' continues into nothing");
            }
        }
    }
}
