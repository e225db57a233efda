//! Which packs are done away with, and which are left as they are.

use granary_castore::Swept;

use super::survey::PackSurvey;

/// Packs of less than a quarter of their usual length are put together when there are so many.
const MAX_SMALL_PACKS: usize = 8;

/// Which packs go.
pub(super) struct Plan {
    /// Nothing in them is wanted.
    pub(super) empty: Vec<PackSurvey>,
    /// What is wanted of them is moved: those with the most to gain first.
    pub(super) partly: Vec<PackSurvey>,
}

impl Plan {
    pub(super) fn new(
        surveys: Vec<PackSurvey>,
        max_unused_permille: u32,
        pack_bytes: u64,
        swept: &mut Swept,
    ) -> Self {
        let (damaged, whole): (Vec<_>, Vec<_>) =
            surveys.into_iter().partition(|survey| survey.is_damaged);
        swept.damaged_packs = damaged.len() as u64;
        let (empty, mut rest): (Vec<_>, Vec<_>) =
            whole.into_iter().partition(|survey| survey.live_bytes == 0);
        let mut total: u64 = rest.iter().chain(&damaged).map(|survey| survey.stored_bytes).sum();
        let mut unused: u64 = rest.iter().map(PackSurvey::unused_bytes).sum();
        // Compared without fractions: a/b > c/d if a*d > c*b.
        rest.sort_by_key(|survey| {
            std::cmp::Reverse(
                survey.unused_bytes().saturating_mul(1 << 20) / survey.stored_bytes.max(1),
            )
        });
        let small = |survey: &PackSurvey| survey.stored_bytes < pack_bytes / 4;
        let small_count = rest.iter().filter(|survey| small(survey)).count();
        let mut partly = Vec::new();
        for survey in rest {
            let is_too_much =
                unused.saturating_mul(1000) > total.saturating_mul(max_unused_permille.into());
            if is_too_much && survey.unused_bytes() > 0
                || small_count >= MAX_SMALL_PACKS && small(&survey)
            {
                unused -= survey.unused_bytes();
                total -= survey.unused_bytes();
                partly.push(survey);
            }
        }
        swept.unused_bytes_after = unused;
        Self { empty, partly }
    }
}
