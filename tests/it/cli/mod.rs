//! The commands, and what an operator sees of them.

pub mod alerts;
pub mod channels;
pub mod commands;
pub mod configuration;
pub mod doctor;
pub mod logs;
pub mod metrics;
pub mod monitoring;
pub mod operators;
pub mod package;
pub mod service;
pub mod traces;
