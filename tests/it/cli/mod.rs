//! The commands, and what an operator sees of them.

pub mod commands;
pub mod doctor;
pub mod operators;
