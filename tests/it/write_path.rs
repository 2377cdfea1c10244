//! Whether changes can be written, in what numbers, and what becomes of them when
//! somebody or something is in the way.

mod held;
mod imports;
mod numbers;
mod publication;
mod rights;
mod site;
mod transactions;
