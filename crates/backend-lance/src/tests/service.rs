//! An object store in memory that can fail in the ways that real ones do.

use std::collections::VecDeque;
use std::fmt::{Display, Formatter};
use std::ops::Range;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::*;
use crate::objects::Bucket;
use crate::place::Location;

/// What becomes of a put.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// It takes effect, and the answer is lost.
    NoAnswer,
    /// It is lost on its way.
    NoRequest,
}

/// The service, as many as want speak to it.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub inner: InMemory,
    /// What becomes of the next puts to paths that contain the text.
    pub faults: Mutex<VecDeque<(&'static str, Fault)>>,
    pub ignores_create: bool,
    pub ignores_update: bool,
    pub declines_conditions: bool,
    pub away: Mutex<bool>,
}

impl Service {
    pub(super) fn fault(&self, path: &'static str, fault: Fault) {
        self.faults.lock().push_back((path, fault));
    }

    /// How many faults did not happen yet.
    pub(super) fn faults_left(&self) -> usize {
        self.faults.lock().len()
    }

    pub(super) fn set_away(&self, away: bool) {
        *self.away.lock() = away;
    }

    fn reach(&self) -> Result<()> {
        if *self.away.lock() { Err(no_answer()) } else { Ok(()) }
    }

    fn next_fault(&self, location: &ObjectPath) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (path, fault) = *faults.front()?;
        if !location.as_ref().contains(path) {
            return None;
        }
        faults.pop_front();
        Some(fault)
    }

    /// The paths of all objects that contain a text.
    pub(super) async fn paths(&self, text: &str) -> Vec<String> {
        let all: Vec<_> = self.inner.list(None).collect().await;
        let paths = all.into_iter().map(|object| object.unwrap().location.to_string());
        paths.filter(|path| path.contains(text)).collect()
    }

    pub(super) async fn remove(&self, text: &str) -> usize {
        let paths = self.paths(text).await;
        for path in &paths {
            self.inner.delete(&ObjectPath::from(path.as_str())).await.unwrap();
        }
        paths.len()
    }
}

fn no_answer() -> Error {
    Error::Generic { store: "test", source: "no answer".into() }
}

impl Display for Service {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

#[async_trait]
impl ObjectStore for Service {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.reach()?;
        match opts.mode {
            PutMode::Overwrite => {}
            _ if self.declines_conditions => {
                return Err(Error::NotImplemented {
                    operation: "conditional put".into(),
                    implementer: "test".into(),
                });
            }
            PutMode::Create if self.ignores_create => opts.mode = PutMode::Overwrite,
            PutMode::Update(_) if self.ignores_update => opts.mode = PutMode::Overwrite,
            _ => {}
        }
        match self.next_fault(location) {
            Some(Fault::NoRequest) => Err(no_answer()),
            Some(Fault::NoAnswer) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(no_answer())
            }
            None => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.reach()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.reach()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.reach()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        match self.reach() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(e) => futures::stream::once(std::future::ready(Err(e))).boxed(),
        }
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.reach() {
            Ok(()) => self.inner.list(prefix),
            Err(e) => futures::stream::once(std::future::ready(Err(e))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.reach()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.reach()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store at a place of the service that another process would have too.
pub(super) async fn try_open(
    service: &Arc<Service>,
    options: LanceOptions,
) -> mainstay_core::Result<LanceStore> {
    let url = "s3://bucket/some/prefix".parse().unwrap();
    let bucket = Bucket::new(url, service.clone(), false).unwrap();
    LanceStore::open_at(options, Location::Objects(Box::new(bucket))).await
}

pub(super) async fn open_on(service: &Arc<Service>) -> LanceStore {
    let options = LanceOptions { maintenance: false, ..LanceOptions::default() };
    try_open(service, options).await.unwrap()
}
