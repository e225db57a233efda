//! Running a list of named checks.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// One check of a suite: its name, and what panics if it fails.
pub(crate) type Check<T> = (&'static str, fn(&T));

/// Runs each check on a subject of its own and panics if any has failed, with the names of
/// all that have.
pub(crate) fn run<T>(suite: &str, make: &dyn Fn() -> T, checks: &[Check<T>]) {
    let mut failed = Vec::new();
    for (name, check) in checks {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&make())));
        if let Err(panic) = outcome {
            failed.push(format!("{suite}::{name}: {}", message(&*panic)));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} checks of {suite} failed:\n{}",
        failed.len(),
        checks.len(),
        failed.join("\n")
    );
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Pairs functions with their names.
macro_rules! checks {
    ($($check:ident),+ $(,)?) => { &[$((stringify!($check), $check)),+] };
}
pub(crate) use checks;

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(_: &&str) {}

    fn fails(subject: &&str) {
        assert!(subject.is_empty(), "the subject is odd");
    }

    #[test]
    fn names_what_fails() {
        run("suite", &|| "", checks![passes, fails]);
        let outcome = catch_unwind(|| run("suite", &|| "odd", checks![passes, fails]));
        let panic = outcome.expect_err("a check failed");
        let text = message(&*panic);
        assert!(text.starts_with("1 of 2 checks of suite failed:\nsuite::fails: "), "{text}");
        assert!(text.contains("the subject is odd"), "{text}");
    }
}
