//! Which image a cluster's containers run: a finished one, or one that is addressed by everything that goes into it.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::ErrorClass;
use crate::{
    spec::PostgresVersion,
    templates::dockerfile::{Dockerfile, render_dockerfile},
};

/// The base that images are built on.
pub const BASE_IMAGE: &str = "debian:trixie-slim";

/// Repository of the images built here.
pub const REPOSITORY: &str = "spilo";

/// Hexadecimal digits of the address that a tag carries.
const TAG_DIGITS: usize = 12;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// A finished image, pulled when it is missing.
    Finished(String),
    /// An image that is built when it is missing.
    Built(ImageRecipe),
}

impl ImageSource {
    /// The image's name and tag.
    pub fn reference(&self) -> String {
        match self {
            ImageSource::Finished(reference) => reference.clone(),
            ImageSource::Built(recipe) => recipe.reference(),
        }
    }
}

/// What `/usr/bin/spilo` in the image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// This file, as it is.
    Binary(PathBuf),
    /// A compilation of this source tree, in a stage of its own.
    Source(PathBuf),
}

/// Everything that goes into an image. The address is a digest of all of it, so that an image that is there is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageRecipe {
    /// PostgreSQL's major version.
    pub postgres: PostgresVersion,
    /// Where our own binary comes from.
    pub payload: Payload,
    /// The build file.
    #[serde(skip)]
    pub dockerfile: String,
    /// Digest of build file and payload, in hexadecimal.
    pub inputs: String,
}

impl ImageRecipe {
    /// An image with the very binary that is running.
    pub fn of_running_binary(postgres: PostgresVersion) -> Result<ImageRecipe, ImageError> {
        if !cfg!(target_os = "linux") {
            return Err(ImageError::NotLinux);
        }
        ImageRecipe::of_binary(postgres, PathBuf::from("/proc/self/exe"))
    }

    /// An image with this binary.
    pub fn of_binary(postgres: PostgresVersion, binary: PathBuf) -> Result<ImageRecipe, ImageError> {
        let dockerfile = render_dockerfile(&dockerfile_for(postgres, false));
        let mut digest = digest_of(&dockerfile);
        add_file(&mut digest, &binary).map_err(|source| ImageError::unreadable(&binary, source))?;
        Ok(ImageRecipe { postgres, payload: Payload::Binary(binary), dockerfile, inputs: hex::encode(digest.finalize()) })
    }

    /// An image whose binary is compiled from this source tree while it is built.
    pub fn of_source(postgres: PostgresVersion, directory: PathBuf) -> Result<ImageRecipe, ImageError> {
        if !directory.join("Cargo.toml").is_file() {
            return Err(ImageError::NotASourceTree(directory));
        }
        let dockerfile = render_dockerfile(&dockerfile_for(postgres, true));
        let mut digest = digest_of(&dockerfile);
        for file in source_files(&directory).map_err(|source| ImageError::unreadable(&directory, source))? {
            digest.update(file.to_string_lossy().as_bytes());
            digest.update([0]);
            let path = directory.join(&file);
            add_file(&mut digest, &path).map_err(|source| ImageError::unreadable(&path, source))?;
        }
        Ok(ImageRecipe { postgres, payload: Payload::Source(directory), dockerfile, inputs: hex::encode(digest.finalize()) })
    }

    /// Name and tag, such as `spilo:pg17-0123456789ab`.
    pub fn reference(&self) -> String {
        format!("{REPOSITORY}:pg{}-{}", self.postgres, &self.inputs[..TAG_DIGITS])
    }
}

/// The build file's context for one version of PostgreSQL.
fn dockerfile_for(postgres: PostgresVersion, from_source: bool) -> Dockerfile {
    Dockerfile {
        base: BASE_IMAGE,
        postgres: postgres.get(),
        version: env!("CARGO_PKG_VERSION"),
        // The version that trixie carries; every other one comes from PostgreSQL's own archive.
        pgdg: postgres != PostgresVersion::default(),
        from_source,
    }
}

fn digest_of(dockerfile: &str) -> Sha256 {
    let mut digest = Sha256::new();
    // The length keeps build file and payload apart: without it, bytes could move from one to the other unnoticed.
    digest.update((dockerfile.len() as u64).to_be_bytes());
    digest.update(dockerfile);
    digest
}

fn add_file(digest: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    digest.update(file.metadata()?.len().to_be_bytes());
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// The files of a source tree, relative and in a fixed order. Hidden ones and build output stay out.
pub(super) fn source_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for entry in std::fs::read_dir(directory.join(&relative))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || (relative.as_os_str().is_empty() && name == "target") {
                continue;
            }
            let path = relative.join(&name);
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// One image that was built here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Name and tag.
    pub reference: String,
    /// PostgreSQL's major version.
    pub postgres: Option<String>,
    /// The version of spilo inside.
    pub version: Option<String>,
    /// Digest of what it was built from.
    pub inputs: Option<String>,
    /// Bytes, shared layers included.
    pub size: u64,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// How many containers run it.
    pub containers: usize,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The running binary cannot run in a Linux container.
    #[error("the binary that is running was not built for Linux, so that no image can be made with it")]
    NotLinux,
    /// A file that goes into the image cannot be read.
    #[error("cannot read '{path}', which goes into the image: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `--from-source` without a source tree.
    #[error("'{}' is not the source tree of spilo: it has no Cargo.toml", .0.display())]
    NotASourceTree(PathBuf),
    /// A finished image is not here and cannot be pulled.
    #[error("image '{reference}' is not here and cannot be pulled: {reason}")]
    NotPulled {
        /// The image.
        reference: String,
        /// What the engine said.
        reason: String,
    },
    /// The base is not here, cannot be pulled and cannot be made.
    #[error("the base image '{BASE_IMAGE}' is not here, cannot be pulled ({pull}), and cannot be made from Debian's packages: {reason}")]
    NoBase {
        /// Why it could not be pulled.
        pull: String,
        /// Why it could not be made.
        reason: String,
    },
    /// The base could not be made from packages.
    #[error("the base image '{BASE_IMAGE}' could not be made from Debian's packages; the last lines:{}", indented(lines))]
    BaseFailed {
        /// The end of the output.
        lines: Vec<String>,
    },
    /// A step of the build failed.
    #[error("image '{reference}' does not build: {step}: {reason}; the last lines:{}", indented(lines))]
    BuildFailed {
        /// The image.
        reference: String,
        /// The step that failed.
        step: String,
        /// What the engine said.
        reason: String,
        /// The end of its output.
        lines: Vec<String>,
    },
}

impl ImageError {
    fn unreadable(path: &Path, source: io::Error) -> ImageError {
        ImageError::Unreadable { path: path.to_owned(), source }
    }

    /// How to treat it.
    pub fn class(&self) -> ErrorClass {
        match self {
            ImageError::NotLinux | ImageError::NotASourceTree(_) => ErrorClass::Usage,
            _ => ErrorClass::Failed,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ImageError::NotLinux => "compile it inside the image (spilo image build --from-source DIR) or use a finished one (--image REF)",
            ImageError::NotASourceTree(_) => "name the directory of a checkout of spilo",
            ImageError::NotPulled { .. } => "is its name right, and does the registry answer? docker pull shows more",
            ImageError::NoBase { .. } => "as root on Debian: apt-get install mmdebstrap; elsewhere use a finished image: --image REF",
            ImageError::BaseFailed { .. } => "do Debian's mirrors answer from this machine?",
            ImageError::BuildFailed { .. } => {
                "do Debian's mirrors (and, for versions other than 17, apt.postgresql.org) answer from inside containers?"
            }
            ImageError::Unreadable { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

fn indented(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n    {line}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(main: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("src")).unwrap();
        std::fs::create_dir_all(directory.path().join("target")).unwrap();
        std::fs::write(directory.path().join("Cargo.toml"), "[package]").unwrap();
        std::fs::write(directory.path().join("src/main.rs"), main).unwrap();
        std::fs::write(directory.path().join("target/big"), main).unwrap();
        std::fs::write(directory.path().join(".hidden"), main).unwrap();
        directory
    }

    #[test]
    fn the_same_inputs_have_the_same_address_and_any_other_has_not() {
        let directory = tree("fn main() {}");
        let binary = directory.path().join("src/main.rs");
        let pg17 = PostgresVersion::default();
        let first = ImageRecipe::of_binary(pg17, binary.clone()).unwrap();
        assert_eq!(first, ImageRecipe::of_binary(pg17, binary.clone()).unwrap());
        let pg16 = PostgresVersion::try_from(16).unwrap();
        assert_ne!(first.inputs, ImageRecipe::of_binary(pg16, binary.clone()).unwrap().inputs);
        std::fs::write(&binary, "fn main() { }").unwrap();
        assert_ne!(first.inputs, ImageRecipe::of_binary(pg17, binary).unwrap().inputs);
    }

    #[test]
    fn a_tag_names_the_version_and_twelve_digits_of_the_address() {
        let directory = tree("x");
        let recipe = ImageRecipe::of_binary(PostgresVersion::default(), directory.path().join("src/main.rs")).unwrap();
        assert_eq!(recipe.reference(), format!("spilo:pg17-{}", &recipe.inputs[..12]));
    }

    #[test]
    fn build_output_and_hidden_files_do_not_go_into_the_image() {
        let directory = tree("x");
        assert_eq!(source_files(directory.path()).unwrap(), [Path::new("Cargo.toml"), Path::new("src/main.rs")]);
    }

    #[test]
    fn a_directory_without_sources_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = ImageRecipe::of_source(PostgresVersion::default(), directory.path().to_owned()).unwrap_err();
        assert!(matches!(error, ImageError::NotASourceTree(_)), "{error}");
    }

    #[test]
    fn a_failed_build_shows_its_last_lines() {
        let error = ImageError::BuildFailed {
            reference: "spilo:pg17-0".into(),
            step: "Step 2/9 : RUN false".into(),
            reason: "returned a non-zero code: 1".into(),
            lines: vec!["E: no such package".into()],
        };
        assert!(error.to_string().ends_with("the last lines:\n    E: no such package"), "{error}");
    }
}
