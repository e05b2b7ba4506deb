//! Reading objects: whole, or not at all. A line that breaks is taken up where it broke.

use std::time::Duration;

use aws_sdk_s3::{
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, DateTime},
};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{ANSWER, Answer, CHECKSUM, Failure, Pause, S3Store, Session, Verb};
use crate::{model::ObjectName, storage::StoreError, sys::causes};

/// How often what arrives may be something else than what was written, before it is known to be damaged where it is kept.
const DAMAGED: u32 = 3;

/// Memory is taken for no more than this before it arrives, whatever length the server says.
const RESERVED: u64 = 64 << 20;

/// In so much time so many bytes have to arrive; with less the line is as good as broken.
const WINDOW: Duration = Duration::from_secs(10);
const ENOUGH: u64 = 256 << 10;

/// What of an object is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first byte.
    pub from: u64,
    /// How many bytes at most; `None` for all of the object.
    pub length: Option<u64>,
}

/// All of an object.
pub const WHOLE: Span = Span { from: 0, length: None };

/// What has arrived of it.
struct Arrived {
    /// Names the version of the object that this is of.
    version: Option<String>,
    /// Where it ends.
    end: u64,
    /// What the content was when it was written.
    checksum: Option<u32>,
    content: Vec<u8>,
}

/// Reads that much of the object. `None` when the server says that there is none.
pub async fn read(store: &S3Store, name: &ObjectName, span: Span) -> Result<Option<Bytes>, StoreError> {
    let mut patience = store.patience_for(name);
    let (mut arrived, mut furthest, mut damaged) = (None::<Arrived>, 0, 0);
    loop {
        let send = async |session: &Session| request(store, session, name, span, arrived.as_ref()).await;
        let answer = match store.ask(&mut patience, ANSWER, send).await? {
            Ok(answer) => answer,
            Err(Answer::NoSuchKey) => return Ok(None),
            Err(Answer::BeyondTheEnd) if arrived.is_none() => return Ok(Some(Bytes::new())),
            Err(_) => {
                arrived = None;
                patience.wait(Pause::Short, "the object changed while it was read".to_owned()).await?;
                continue;
            }
        };
        let why = match receive(&mut arrived, span, answer).await {
            Ok(whole) => match whole.spoiled(span) {
                false => return Ok(Some(whole.content.into())),
                true => {
                    damaged += 1;
                    "what arrives is not what was written (by its CRC-32C)".to_owned()
                }
            },
            Err(why) => why,
        };
        if damaged == DAMAGED {
            return Err(patience.refused(format!("{why}; hint: the object is damaged in the store")));
        }
        let length = arrived.as_ref().map_or(0, |arrived| arrived.content.len());
        if length > furthest {
            furthest = length;
            patience.renew();
        }
        patience.wait(Pause::Short, why).await?;
    }
}

/// Asks for what has not arrived yet.
async fn request(
    store: &S3Store,
    session: &Session,
    name: &ObjectName,
    span: Span,
    arrived: Option<&Arrived>,
) -> Result<GetObjectOutput, Failure> {
    let place = store.place();
    let mut request = session.client.get_object().bucket(&place.bucket).key(place.key(name));
    if let Some(arrived) = arrived {
        let from = span.from + arrived.content.len() as u64;
        request = request.range(format!("bytes={from}-{}", arrived.end - 1)).set_if_match(arrived.version.clone());
    } else if let Some(length) = span.length {
        request = request.range(format!("bytes={}-{}", span.from, span.from.saturating_add(length) - 1));
    }
    request.send().await.map_err(|error| store.failure(Verb::Get, &error))
}

/// Takes in what is sent. When that is not all, what has arrived stays there for the next attempt to continue.
async fn receive(arrived: &mut Option<Arrived>, span: Span, mut answer: GetObjectOutput) -> Result<Arrived, String> {
    let mut so_far = continued(arrived.take(), span, &answer)?;
    let wanted = so_far.end - span.from.min(so_far.end);
    let Err(why) = take_in(&mut answer.body, &mut so_far.content, wanted).await else { return Ok(so_far) };
    // Without its version nobody knows that the rest belongs to it; and where nothing is missing, something else is wrong with it.
    if so_far.version.is_some() && (so_far.content.len() as u64) < wanted {
        *arrived = Some(so_far);
    }
    Err(why)
}

/// What has arrived before, or a beginning: the answer has to go on exactly there.
fn continued(before: Option<Arrived>, span: Span, answer: &GetObjectOutput) -> Result<Arrived, String> {
    let (from, length) = extent(answer).ok_or("the server does not say how long the object is")?;
    let end = span.length.map_or(length, |wanted| length.min(span.from.saturating_add(wanted)));
    let so_far = before.unwrap_or_else(|| Arrived {
        version: answer.e_tag().map(str::to_owned),
        end,
        checksum: answer.metadata().and_then(|kept| u32::from_str_radix(kept.get(CHECKSUM)?, 16).ok()),
        content: Vec::with_capacity(usize::try_from((end - span.from.min(end)).min(RESERVED)).unwrap_or_default()),
    });
    // An empty object has no part that could be named.
    let goes_on = from == span.from + so_far.content.len() as u64 || length == 0;
    if goes_on && so_far.end == end { Ok(so_far) } else { Err("the server sends another part of the object than was asked for".to_owned()) }
}

/// Where in the object the answer begins, and how long the object is.
fn extent(answer: &GetObjectOutput) -> Option<(u64, u64)> {
    match answer.content_range() {
        Some(range) => {
            let (part, length) = range.strip_prefix("bytes ")?.split_once('/')?;
            Some((part.split_once('-')?.0.parse().ok()?, length.parse().ok()?))
        }
        None => Some((0, u64::try_from(answer.content_length()?).ok()?)),
    }
}

/// Appends what comes, until there are so many bytes.
async fn take_in(body: &mut ByteStream, content: &mut Vec<u8>, wanted: u64) -> Result<(), String> {
    let mut window = Window::open();
    loop {
        match timeout_at(window.closes, body.next()).await {
            Ok(Some(Ok(bytes))) => {
                content.extend_from_slice(&bytes);
                window.arrived += bytes.len() as u64;
            }
            Ok(Some(Err(error))) => {
                return Err(format!("the line broke after {} of {wanted} bytes: {}", content.len(), causes::in_one_line(&error)));
            }
            Ok(None) if content.len() as u64 == wanted => return Ok(()),
            Ok(None) => return Err(format!("{} bytes came of {wanted}", content.len())),
            Err(_) if window.arrived >= ENOUGH => window = Window::open(),
            Err(_) => return Err(format!("nothing comes after {} of {wanted} bytes", content.len())),
        }
        if content.len() as u64 > wanted {
            return Err(format!("more than {wanted} bytes come"));
        }
    }
}

/// A stretch of time in which something has to arrive.
struct Window {
    closes: Instant,
    arrived: u64,
}

impl Window {
    fn open() -> Window {
        Window { closes: Instant::now() + WINDOW, arrived: 0 }
    }
}

impl Arrived {
    /// It is not what was written. Only known of whole objects.
    fn spoiled(&self, span: Span) -> bool {
        span.length.is_none() && self.checksum.is_some_and(|checksum| checksum != crc32c::crc32c(&self.content))
    }
}

/// The size of the object, and when it was written by the server's clock. `None` when the server says that there is none.
pub async fn facts(store: &S3Store, name: &ObjectName) -> Result<Option<(u64, Option<DateTime>)>, StoreError> {
    let mut patience = store.patience_for(name);
    let head = async |session: &Session| {
        let request = session.client.head_object().bucket(&store.place().bucket).key(store.place().key(name));
        request.send().await.map_err(|error| store.failure(Verb::Head, &error))
    };
    if let Ok(answer) = store.ask(&mut patience, ANSWER, head).await? {
        let size = answer.content_length().and_then(|size| u64::try_from(size).ok());
        return size.map(|size| Some((size, answer.last_modified().copied()))).ok_or_else(|| no_length(name));
    }
    // A HEAD says no without a reason, which may be that there is no bucket. A GET of one byte has room for it.
    let first = Span { from: 0, length: Some(1) };
    let get = async |session: &Session| request(store, session, name, first, None).await;
    match store.ask(&mut patience, ANSWER, get).await? {
        Ok(answer) => {
            let size = extent(&answer).map(|(_, length)| length);
            size.map(|size| Some((size, answer.last_modified().copied()))).ok_or_else(|| no_length(name))
        }
        Err(Answer::NoSuchKey) => Ok(None),
        Err(Answer::BeyondTheEnd) => Ok(Some((0, None))),
        Err(answer) => Err(answer.unexpected(name)),
    }
}

fn no_length(name: &ObjectName) -> StoreError {
    StoreError::Unavailable { object: name.to_string(), why: "the server does not say how long it is".to_owned() }
}
