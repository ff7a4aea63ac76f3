//! The objects, and what S3 says of them.
//!
//! What nobody here asks for is declined as `NotImplemented`: conditions of puts, and uploads in parts, of which a client that
//! began to use them could leave unfinished ones behind.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use s3s::dto::{
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::NAME;

/// Objects of one page of a listing: few, so that listings have several.
const PAGE: usize = 40;

/// What is in the bucket.
#[derive(Clone, Default)]
pub(super) struct Objects {
    all: Arc<Mutex<All>>,
}

#[derive(Default)]
struct All {
    objects: BTreeMap<String, Held>,
    puts: u64,
}

#[derive(Clone)]
struct Held {
    bytes: Bytes,
    tag: ETag,
    written: SystemTime,
}

impl Objects {
    /// The objects by key.
    pub(super) fn all(&self) -> BTreeMap<String, Bytes> {
        self.all.lock().objects.iter().map(|(key, held)| (key.clone(), held.bytes.clone())).collect()
    }

    /// Sets back when everything was written.
    pub(super) fn grow_older(&self, by: Duration) {
        self.all.lock().objects.values_mut().for_each(|held| held.written -= by);
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Held> {
        check(bucket)?;
        self.all.lock().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

fn check(bucket: &str) -> S3Result<()> {
    if bucket == NAME { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
}

impl Held {
    /// Whole seconds, as S3 has them.
    fn written(&self) -> Timestamp {
        let since = self.written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())).into()
    }

    fn size(&self) -> i64 {
        i64::try_from(self.bytes.len()).unwrap_or(i64::MAX)
    }

    fn matches(&self, condition: &ETagCondition) -> bool {
        condition.is_any() || condition.as_etag().is_some_and(|tag| tag.strong_cmp(&self.tag))
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let put = request.input;
        check(&put.bucket)?;
        if put.if_match.is_some() || put.if_none_match.is_some() {
            return Err(s3_error!(NotImplemented));
        }
        let mut bytes = Vec::new();
        if let Some(mut body) = put.body {
            while let Some(part) = body.try_next().await.map_err(|_| s3_error!(IncompleteBody))? {
                bytes.extend_from_slice(&part);
            }
        }
        if put.content_length.is_some_and(|length| length != bytes.len() as i64) {
            return Err(s3_error!(IncompleteBody));
        }
        let mut all = self.all.lock();
        all.puts += 1;
        let tag = ETag::Strong(all.puts.to_string());
        let held = Held { bytes: bytes.into(), tag: tag.clone(), written: SystemTime::now() };
        all.objects.insert(put.key, held);
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(tag), ..PutObjectOutput::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let get = request.input;
        let held = self.find(&get.bucket, &get.key)?;
        // What is left of an answer that was cut is asked for with both.
        if get.if_match.is_some_and(|condition| !held.matches(&condition)) {
            return Err(s3_error!(PreconditionFailed));
        }
        let size = held.bytes.len() as u64;
        let (range, shown) = match get.range {
            Some(range) => {
                let range = range.check(size)?;
                let shown = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
                (range, Some(shown))
            }
            None => (0..size, None),
        };
        let body = held.bytes.slice(range.start as usize..range.end as usize);
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(body.len() as i64),
            body: Some(StreamingBlob::wrap(futures::stream::iter([Ok::<_, std::io::Error>(body)]))),
            content_range: shown,
            last_modified: Some(held.written()),
            e_tag: Some(held.tag),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let held = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(held.size()),
            last_modified: Some(held.written()),
            e_tag: Some(held.tag),
            ..HeadObjectOutput::default()
        }))
    }

    /// The client removes single objects this way too.
    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        check(&request.input.bucket)?;
        let mut all = self.all.lock();
        let gone = request.input.delete.objects.into_iter().map(|object| {
            all.objects.remove(&object.key);
            DeletedObject { key: Some(object.key), ..DeletedObject::default() }
        });
        let deleted = Some(gone.collect());
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let list = request.input;
        check(&list.bucket)?;
        if list.delimiter.is_some() {
            return Err(s3_error!(NotImplemented));
        }
        let prefix = list.prefix.clone().unwrap_or_default();
        let page = list.max_keys.and_then(|n| usize::try_from(n).ok()).map_or(PAGE, |n| n.min(PAGE));
        let from = match list.continuation_token.clone().or(list.start_after) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let all = self.all.lock();
        let below = all.objects.range((from, Bound::Unbounded));
        let mut below = below.take_while(|(key, _)| key.starts_with(&prefix)).peekable();
        let mut contents = Vec::new();
        while contents.len() < page
            && let Some((key, held)) = below.next()
        {
            contents.push(Object {
                key: Some(key.clone()),
                size: Some(held.size()),
                last_modified: Some(held.written()),
                e_tag: Some(held.tag.clone()),
                ..Object::default()
            });
        }
        let last = contents.last().and_then(|object| object.key.clone());
        let more = below.peek().is_some();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(list.bucket),
            prefix: list.prefix,
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            continuation_token: list.continuation_token,
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        }))
    }
}
