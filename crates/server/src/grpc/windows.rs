//! Streams of what is read window by window.
//!
//! A client may ask for hundreds of them and then take nothing, so what is read before it is
//! taken is bounded over all streams: some read long windows, the others short ones. No thread
//! waits for the client: each window is one call, made when the one before it has been taken.

use std::sync::Arc;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use granary_castore::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::blocking;

/// Most streams that read long windows at a time, over all connections.
pub(super) const MAX_LONG_WINDOWS: usize = 32;

/// Of what length a window should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So that calls cost little.
    Long,
    /// So that it may wait in memory however many do.
    Short,
}

/// Makes streams of windows.
#[derive(Clone)]
pub(super) struct Windows {
    long: Arc<Semaphore>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { long: Arc::new(Semaphore::new(MAX_LONG_WINDOWS)) }
    }
}

impl Windows {
    /// Everything that `read` gives, which is called with what it returned last until that is
    /// an empty window.
    pub(super) fn stream<S: Send + 'static, T: Send + 'static>(
        &self,
        state: S,
        read: impl Fn(S, Length) -> Result<(Vec<T>, S)> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let read = Arc::new(read);
        let long = Arc::clone(&self.long);
        // Held as long as anything that was read.
        let permit: Option<OwnedSemaphorePermit> = None;
        let windows = stream::try_unfold((state, permit), move |(state, permit)| {
            let read = Arc::clone(&read);
            let permit = permit.or_else(|| Arc::clone(&long).try_acquire_owned().ok());
            let length = if permit.is_some() { Length::Long } else { Length::Short };
            async move {
                let (window, state) = blocking::run(move || read(state, length)).await?;
                if window.is_empty() {
                    return Ok(None);
                }
                let window = stream::iter(window.into_iter().map(Ok));
                Ok::<_, Status>(Some((window, (state, permit))))
            }
        });
        windows.try_flatten().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to 1000, by a hundred at a time or by ten.
    fn numbers(windows: &Windows) -> BoxStream<'static, Result<(usize, Length), Status>> {
        windows.stream(0, |next, length| {
            let count = if length == Length::Long { 100 } else { 10 };
            let end = (next + count).min(1000);
            Ok(((next..end).map(|number| (number, length)).collect(), end))
        })
    }

    #[tokio::test]
    async fn few_have_long_windows_and_all_get_everything() {
        let windows = Windows::default();
        let mut streams: Vec<_> = (0..3 * MAX_LONG_WINDOWS).map(|_| numbers(&windows)).collect();
        let mut long = 0;
        for stream in &mut streams {
            let (number, length) = stream.next().await.expect("the first").expect("read");
            assert_eq!(number, 0);
            long += usize::from(length == Length::Long);
        }
        assert_eq!(long, MAX_LONG_WINDOWS);
        // All others take nothing.
        let last = streams.pop().expect("there are some");
        let rest: Vec<_> = last.map(|item| item.expect("read")).collect().await;
        assert!(rest.iter().map(|item| item.0).eq(1..1000));
        assert!(rest.iter().all(|item| item.1 == Length::Short));
        // Who has gone leaves the long windows to others.
        drop(streams.drain(..MAX_LONG_WINDOWS));
        let (_, length) = numbers(&windows).next().await.expect("the first").expect("read");
        assert_eq!(length, Length::Long);
    }
}
