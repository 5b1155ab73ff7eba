//! Values that are known only after the listeners are bound.

use super::files::ExtraFiles;

/// The addresses of the listeners, and what names them.
pub(super) struct Bound {
    /// The base URLs of the public listeners.
    pub urls: Vec<String>,
    /// Files that name an address of a listener.
    pub files: ExtraFiles,
}
