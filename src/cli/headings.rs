//! The headings under which `serve --help` groups its flags.

pub const CONFIG: &str = "Configuration file";
pub const LISTEN: &str = "Listen";
pub const STORAGE: &str = "Storage";
pub const REDIS: &str = "Redis";
pub const SEGMENTS: &str = "Segments";
pub const RETENTION: &str = "Retention";
pub const LIMITS: &str = "Limits";
pub const ACCESS: &str = "Access";
pub const WEBSOCKET: &str = "WebSocket";
pub const DEMO: &str = "Demo and logging";
