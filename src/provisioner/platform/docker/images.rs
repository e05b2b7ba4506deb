//! The image that a cluster's containers run: pulled, or built by the engine's classic builder, which every version of it has.

use std::{collections::HashMap, fs::File, io, path::Path, time::Duration};

use bollard::{
    Docker, body_full,
    models::CreateImageInfo,
    query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder},
};
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::{
    base,
    build_output::BuildOutput,
    engine::{failed, or_missing, sentence},
    names,
};
use crate::provisioner::{
    error::ProvisionError,
    image::{ImageError, ImageInfo, ImageRecipe, ImageSource, Payload, REPOSITORY, source_files},
    observe::ObjectKind,
    progress::{Remark, Say},
};

/// How long a registry may be silent before it counts as not answering.
const REGISTRY_SILENCE: Duration = Duration::from_secs(20);

/// Whether an image is here.
pub(super) async fn is_present(docker: &Docker, reference: &str) -> Result<bool, ProvisionError> {
    let found = or_missing(docker.inspect_image(reference).await);
    Ok(found.map_err(failed(format!("inspect image '{reference}'")))?.is_some())
}

/// The image is here. One that is here already is not looked at again: its name says what it was made from.
pub(super) async fn ensure(docker: &Docker, image: &ImageSource, say: Say<'_>) -> Result<String, ProvisionError> {
    let reference = image.reference();
    if is_present(docker, &reference).await? {
        return Ok(reference);
    }
    match image {
        ImageSource::Finished(_) => {
            pull(docker, &reference, say).await.map_err(|reason| ImageError::NotPulled { reference: reference.clone(), reason })?;
        }
        ImageSource::Built(recipe) => {
            base::ensure(docker, say).await?;
            build(docker, recipe, say).await?;
        }
    }
    Ok(reference)
}

/// Pulls an image; the error is what the engine or the registry said.
pub(super) async fn pull(docker: &Docker, reference: &str, say: Say<'_>) -> Result<(), String> {
    // Without a tag the engine would fetch every tag there is.
    let last_part = reference.rsplit('/').next().unwrap_or(reference);
    let complete = if last_part.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::default().from_image(&complete).build();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    loop {
        match tokio::time::timeout(REGISTRY_SILENCE, progress.next()).await {
            Ok(Some(Ok(CreateImageInfo { status: Some(status), progress_detail: None, .. }))) => say(Remark::Passing(&status)),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(sentence(&error)),
            Ok(None) => return Ok(()),
            Err(_) => return Err(format!("the registry was silent for {} seconds", REGISTRY_SILENCE.as_secs())),
        }
    }
}

/// Builds the image, telling every line of the build.
async fn build(docker: &Docker, recipe: &ImageRecipe, say: Say<'_>) -> Result<(), ProvisionError> {
    let reference = recipe.reference();
    say(Remark::Passing(&format!("building image '{reference}'")));
    let context = pack(recipe).map_err(|source| ProvisionError::Local { doing: "pack what goes into the image".to_owned(), source })?;
    // The other labels are in the build file; this one is a digest of it.
    let labels = HashMap::from([(names::INPUTS.to_owned(), recipe.inputs.clone())]);
    let options = BuildImageOptionsBuilder::default().t(&reference).rm(true).forcerm(true).labels(&labels).build();
    let mut answers = std::pin::pin!(docker.build_image(options, None, Some(body_full(context.into()))));
    let mut output = BuildOutput::default();
    while let Some(info) = answers.next().await {
        match info {
            Ok(info) => output.take(info.stream.as_deref().unwrap_or_default()).iter().for_each(|line| say(Remark::Passing(line))),
            Err(error) => {
                let (step, lines) = output.end();
                return Err(ImageError::BuildFailed { reference, step, reason: exit_only(&sentence(&error)), lines }.into());
            }
        }
    }
    Ok(())
}

/// The engine repeats the whole command before it says how it ended.
fn exit_only(reason: &str) -> String {
    match reason.find("returned a non-zero code") {
        Some(position) => reason[position..].to_owned(),
        None => reason.to_owned(),
    }
}

/// The build's context: the build file and the payload. Times are left at zero, so that the builder's cache sees equal files as equal.
fn pack(recipe: &ImageRecipe) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let dockerfile = recipe.dockerfile.as_bytes();
    archive.append_data(&mut header(0o644, dockerfile.len() as u64), "Dockerfile", dockerfile)?;
    match &recipe.payload {
        Payload::Binary(path) => append_file(&mut archive, path, "spilo", 0o755)?,
        Payload::Source(directory) => {
            for file in source_files(directory)? {
                let inside = Path::new("source").join(&file);
                append_file(&mut archive, &directory.join(&file), &inside.to_string_lossy(), 0o644)?;
            }
        }
    }
    archive.into_inner()
}

fn append_file(archive: &mut tar::Builder<Vec<u8>>, path: &Path, inside: &str, mode: u32) -> io::Result<()> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    archive.append_data(&mut header(mode, size), inside, file)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// The images that were built here, newest first.
pub(super) async fn list(docker: &Docker) -> Result<Vec<ImageInfo>, ProvisionError> {
    let wanted = vec![format!("{}=true", names::MANAGED), format!("{}={}", names::KIND, ObjectKind::Image)];
    let options = ListImagesOptionsBuilder::default().filters(&HashMap::from([("label", wanted)])).build();
    let all = ListContainersOptionsBuilder::default().all(true).build();
    let (images, containers) =
        tokio::try_join!(docker.list_images(Some(options)), docker.list_containers(Some(all))).map_err(failed("list images"))?;
    let mut found = Vec::new();
    for image in images {
        let users = containers.iter().filter(|container| container.image_id.as_ref() == Some(&image.id)).count();
        for reference in image.repo_tags.iter().filter(|tag| tag.starts_with(&format!("{REPOSITORY}:"))) {
            found.push(ImageInfo {
                reference: reference.clone(),
                postgres: image.labels.get(names::POSTGRES).cloned(),
                version: image.labels.get(names::VERSION).cloned(),
                inputs: image.labels.get(names::INPUTS).cloned(),
                size: u64::try_from(image.size).unwrap_or_default(),
                created: Timestamp::from_second(image.created).ok(),
                containers: users,
            });
        }
    }
    found.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.reference.cmp(&b.reference)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_not_repeated() {
        assert_eq!(exit_only("The command '/bin/sh -c x' returned a non-zero code: 100"), "returned a non-zero code: 100");
        assert_eq!(exit_only("no space left on device"), "no space left on device");
    }

    #[test]
    fn the_context_holds_the_build_file_and_an_executable() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("any");
        std::fs::write(&binary, "ELF").unwrap();
        let recipe = ImageRecipe::of_binary(crate::spec::PostgresVersion::default(), binary).unwrap();
        let packed = pack(&recipe).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let entries: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()))
            .collect();
        assert_eq!(entries, [("Dockerfile".to_owned(), 0o644), ("spilo".to_owned(), 0o755)]);
    }
}
