//! How much one client, one publisher and all answers together may take.

pub mod budget;
pub mod client_address;
pub mod connections;
pub mod intake_pace;
pub mod rates;
