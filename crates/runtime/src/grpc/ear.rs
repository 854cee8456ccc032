//! Streams whose two ends are in one process need no queues and no tasks between them: each side hears the other in the very call
//! in which it speaks.

use std::fmt;
use std::sync::Arc;

use http::Extensions;

/// What one side gives the other to speak into. It goes with the request, or with the response, of a stream as an extension, which
/// is lost on the way to another process: whoever finds none there uses the stream. The stream stays either way, and tells by its
/// end that nobody listens any more.
pub struct Ear<T>(Arc<dyn Fn(T) + Send + Sync>);

impl<T> Clone for Ear<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Ear<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ear")
    }
}

impl<T: 'static> Ear<T> {
    /// One that hears by `hear`. It is called from any task, so it must not wait, and must not call back into whoever speaks.
    pub fn new(hear: impl Fn(T) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Says something, and returns when it has been heard. To be called without holding a lock.
    pub fn hear(&self, said: T) {
        (self.0)(said);
    }

    /// The one that the other side has given, if it is in this process.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }
}
