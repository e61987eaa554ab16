//! The shop.
mod catalogue;
mod checkout;
mod database;
mod gateway;
mod inventory;
mod money;
mod orders;
fn main() {}
