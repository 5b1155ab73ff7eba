//! A value that can be replaced while others use it, such as settings that are read again.

use parking_lot::RwLock;
use std::sync::Arc;

/// A value that can be replaced. Readers keep the value that they have got.
#[derive(Debug, Default)]
pub struct Replaceable<T>(RwLock<Arc<T>>);

impl<T> Replaceable<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Returns the current value.
    pub fn get(&self) -> Arc<T> {
        self.0.read().clone()
    }

    pub fn replace(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}
