//! The store. The only floor that names `aws_sdk_s3`.
//!
//! [`Store`] is a bucket with what a request to it needs; [`error`] says what an error means; [`outage`] waits a store
//! that is down out, for all workers together.

mod answer;
mod body;
mod bucket;
mod completion;
mod connect;
mod credentials;
mod download;
mod environment;
pub mod error;
mod objects;
mod outage;
mod pages;
mod route;
mod settings;
mod store;
mod upload;

pub use body::{FileRange, RateLimiter};
pub use bucket::Retention;
pub use completion::Completed;
pub use connect::ConnectionSettings;
pub use download::{Interest, ObjectRef};
pub use environment::prepare_environment;
pub use error::{ErrorKind, StoreError};
pub use objects::{DELETE_BATCH, ListedObject, ListedUpload, ObjectHead, OpenUpload, StoredPart};
pub use settings::ObjectSettings;
pub use store::Store;
/// How often damaged bytes, a wrong ETag or a lost upload id make whoever sends them begin anew.
pub const TRIES: u32 = 4;

pub use upload::{Condition, PartAnswer, PutAnswer, Upload};
