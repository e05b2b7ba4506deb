//! From what is wished for to what is: observe the platform, plan (purely), apply. Every step may be repeated.

mod apply;
mod error;
mod image;
mod lock;
mod observe;
mod plan;
pub mod platform;
mod progress;
mod step;
mod store_secrets;

pub use apply::{Applied, apply, make_plan};
pub use error::{ErrorClass, ProvisionError};
pub use image::{ImageError, ImageInfo, ImageRecipe, ImageSource};
pub use lock::{HeldLock, LockRecord, with_lock};
pub use observe::{ClusterSummary, Condition, Foreign, Form, Inventory, Object, ObjectKind, StoredSpec, Surroundings};
pub use plan::{Plan, Untouched, Wish};
pub use platform::{Check, DockerAction, DockerPlatform, ExecOutput, LogLine, LogWish, Platform, Verdict};
pub use progress::{Progress, Remark, Say, Silent};
pub use step::Step;
pub use store_secrets::{StoreSecret, StoreSecrets};
