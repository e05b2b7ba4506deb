//! What is there.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use super::{ANSWER, S3Store, Session, Verb, attempts::Patience};
use crate::{
    model::ObjectName,
    storage::{Object, StoreError},
};

/// Every object below the folder, in the order of their names.
pub async fn below(store: &S3Store, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
    let prefix = format!("{}/", store.place().key(folder));
    let incomplete = |why: &str| StoreError::Unavailable { object: folder.to_string(), why: format!("its list is not complete: {why}") };
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = page(store, &mut store.patience_for(folder), &prefix, token.as_deref()).await?;
        for object in page.contents() {
            let below =
                object.key().and_then(|key| key.strip_prefix(&prefix)).ok_or_else(|| incomplete("it has a name that is not below"))?;
            // What cannot be a name is not ours.
            let Ok(name) = folder.join(below) else { continue };
            let size = object.size().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| incomplete("it has no sizes"))?;
            found.push(Object { name, size });
        }
        match (page.is_truncated(), page.next_continuation_token()) {
            (Some(true), Some(next)) if token.as_deref() != Some(next) => token = Some(next.to_owned()),
            (Some(true), _) => return Err(incomplete("it does not say how it goes on")),
            (Some(false), _) => break,
            (None, _) => return Err(incomplete("it does not say whether it goes on")),
        }
    }
    found.sort();
    Ok(found)
}

/// A part of the list of all names that begin so.
pub async fn page(store: &S3Store, patience: &mut Patience, prefix: &str, token: Option<&str>) -> Result<ListObjectsV2Output, StoreError> {
    let send = async |session: &Session| {
        let request = session.client.list_objects_v2().bucket(&store.place().bucket).prefix(prefix);
        let request = request.set_continuation_token(token.map(str::to_owned));
        request.send().await.map_err(|error| store.failure(Verb::List, &error))
    };
    let answer = store.ask(patience, ANSWER, send).await?;
    answer.map_err(|answer| patience.refused(format!("the server answers a list with {answer:?}; does it speak S3?")))
}
