//! The image with the very binary that was just built.

use std::{path::PathBuf, time::Instant};

use spilo::{
    provisioner::{ImageRecipe, ImageSource, Platform as _, ProvisionError},
    spec::PostgresVersion,
};

use crate::support::{client, engine};

fn binary() -> ImageRecipe {
    ImageRecipe::of_binary(PostgresVersion::default(), PathBuf::from(env!("CARGO_BIN_EXE_spilo"))).unwrap()
}

#[tokio::test]
async fn the_image_is_built_once_labelled_and_listed() {
    let Some(platform) = engine().await else { return };
    let recipe = binary();
    let begin = Instant::now();
    platform.ensure_image(&ImageSource::Built(recipe.clone()), &|line| println!("{line:?}")).await.unwrap();
    println!("built in {:?}", begin.elapsed());
    let begin = Instant::now();
    let unchanged = ImageSource::Built(binary());
    platform.ensure_image(&unchanged, &|line| panic!("nothing is to be said: {line:?}")).await.unwrap();
    assert!(begin.elapsed().as_secs_f64() < 1.0, "unchanged took {:?}", begin.elapsed());
    let listed = platform.images().await.unwrap();
    let image = listed.iter().find(|image| image.reference == recipe.reference()).expect("it is listed");
    assert_eq!(image.inputs.as_deref(), Some(recipe.inputs.as_str()));
    assert_eq!(image.postgres.as_deref(), Some("17"));
    let config = client().await.inspect_image(&recipe.reference()).await.unwrap().config.unwrap();
    assert_eq!(config.user.as_deref(), Some("10432:10432"));
    assert!(config.entrypoint.is_none());
}

#[tokio::test]
async fn a_finished_image_that_nobody_has_is_an_error_with_its_name() {
    let Some(platform) = engine().await else { return };
    let image = ImageSource::Finished("localhost:9/nobody/nothing:1".to_owned());
    let error = platform.ensure_image(&image, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Image(_)), "{error}");
    assert!(error.to_string().contains("'localhost:9/nobody/nothing:1'"), "{error}");
    assert!(error.hint().is_some());
}
