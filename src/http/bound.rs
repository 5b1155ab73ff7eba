//! Values that are known only after the listeners are bound.

use super::AppState;
use super::files::{ExtraFile, ExtraFiles};

/// The addresses of the listeners, and what names them.
pub(super) struct Bound {
    /// The base URLs of the public listeners.
    pub urls: Vec<String>,
    /// Files that name an address of a listener.
    pub files: ExtraFiles,
}

impl AppState {
    /// Takes the base URLs of the public listeners, and files that could not be made before these
    /// were known. Only the first call counts.
    pub fn set_bound(&self, urls: Vec<String>, files: &[ExtraFile]) {
        self.bound.get_or_init(|| Bound { urls, files: ExtraFiles::new(files) });
    }
}
