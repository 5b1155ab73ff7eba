//! Limits on what one client, one publisher and all responses together may use.

pub mod budget;
pub mod client_address;
pub mod connections;
pub mod intake_pace;
pub mod memory;
pub mod rates;
pub mod request_pace;
