//! `spilo image build` and `spilo image list`

use std::time::Instant;

use clap::Subcommand;
use serde::Serialize;

use super::status::age_in_words;
use crate::{
    cli::{
        CommandError, Context, Exit,
        engine::connect,
        interrupt::run_async,
        output::{Shown, table},
        spec_arguments::{ImageArgs, parse_checked},
    },
    provisioner::{ImageInfo, ImageSource, Platform, Remark},
    spec::PostgresVersion,
};

const BUILD_EXAMPLES: &str = "\
Examples:
  spilo image build                        with the binary that is running
  spilo image build --pg 16
  spilo image build --from-source .        where the running binary is not for Linux

The tag is an address of everything that goes in: an image that is there already is not built again.";

/// Build and list images.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[allow(missing_docs)]
    Build(BuildArgs),
    #[allow(missing_docs)]
    List(ListArgs),
}

/// Build the image that clusters run, if it is not there yet
#[derive(Debug, clap::Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub struct BuildArgs {
    /// Major version of PostgreSQL, 15 to 18
    #[arg(long, value_name = "VERSION", default_value_t, value_parser = parse_checked::<PostgresVersion>)]
    pg: PostgresVersion,

    #[command(flatten)]
    image: ImageArgs,
}

/// List the images that were built here
#[derive(Debug, clap::Args)]
pub struct ListArgs {}

#[derive(Debug, Serialize)]
struct Built {
    reference: String,
    elapsed_ms: u128,
}

impl Shown for Built {
    const KIND: &'static str = "Image";

    fn text(&self, _wide: bool) -> String {
        self.reference.clone()
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ImageList(Vec<ImageInfo>);

impl Shown for ImageList {
    const KIND: &'static str = "ImageList";

    fn text(&self, _wide: bool) -> String {
        let now = jiff::Timestamp::now();
        let rows = self.0.iter().map(|image| {
            let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            let age = image.created.and_then(|created| u64::try_from(now.duration_since(created).as_secs()).ok());
            [
                image.reference.clone(),
                word(&image.postgres),
                word(&image.version),
                format!("{} MB", image.size / 1_000_000),
                image.containers.to_string(),
                age.map_or("-".to_owned(), age_in_words),
            ]
        });
        table(["IMAGE", "PG", "SPILO", "SIZE", "CONTAINERS", "AGE"], rows)
    }
}

/// Builds or lists.
pub fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    match command {
        Command::Build(args) => build(context, args),
        Command::List(_) => list(context),
    }
}

fn build(context: &Context, args: &BuildArgs) -> Result<Exit, CommandError> {
    let source = match &args.image.image {
        Some(reference) => ImageSource::Finished(reference.clone()),
        None => ImageSource::Built(args.image.recipe(args.pg)?),
    };
    let built = run_async(|_| async {
        let platform = connect().await?;
        let begin = Instant::now();
        let step = context.ui.step(format!("image {}", source.reference()));
        let say = |remark: Remark<'_>| match remark {
            Remark::Passing(text) => step.note(text),
            Remark::Lasting(text) => context.ui.say(text),
        };
        match platform.ensure_image(&source, &say).await {
            Ok(reference) => {
                step.done();
                Ok(Built { reference, elapsed_ms: begin.elapsed().as_millis() })
            }
            Err(error) => {
                step.failed();
                Err(error.into())
            }
        }
    })?;
    context.show(&built)?;
    Ok(Exit::OK)
}

fn list(context: &Context) -> Result<Exit, CommandError> {
    let images = run_async(|_| async { Ok(connect().await?.images().await?) })?;
    if images.is_empty() && !context.output.is_for_programs() {
        context.ui.say("no image has been built on this machine");
        context.ui.hint("spilo image build");
        return Ok(Exit::OK);
    }
    context.show(&ImageList(images))?;
    Ok(Exit::OK)
}
