//! What is said of a store as a whole.

use granary_store::StoreStats;

use crate::granary::StatsResponse;

impl From<StoreStats> for StatsResponse {
    fn from(stats: StoreStats) -> Self {
        let StoreStats {
            blobs,
            chunks,
            patched_chunks,
            directories,
            path_infos,
            logical_bytes,
            unique_bytes,
            stored_bytes,
            damaged_objects,
            packs,
            format_version,
        } = stats;
        Self {
            blobs,
            chunks,
            patched_chunks,
            directories,
            path_infos,
            logical_bytes,
            unique_bytes,
            stored_bytes,
            damaged_objects,
            packs,
            format_version,
        }
    }
}

impl From<StatsResponse> for StoreStats {
    fn from(message: StatsResponse) -> Self {
        let StatsResponse {
            blobs,
            chunks,
            patched_chunks,
            directories,
            path_infos,
            logical_bytes,
            unique_bytes,
            stored_bytes,
            damaged_objects,
            packs,
            format_version,
        } = message;
        Self {
            blobs,
            chunks,
            patched_chunks,
            directories,
            path_infos,
            logical_bytes,
            unique_bytes,
            stored_bytes,
            damaged_objects,
            packs,
            format_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        let stats = StoreStats {
            blobs: 1,
            chunks: 2,
            patched_chunks: 11,
            directories: 3,
            path_infos: 4,
            logical_bytes: 5,
            unique_bytes: 6,
            stored_bytes: 7,
            damaged_objects: 8,
            packs: 9,
            format_version: 10,
        };
        assert_eq!(StoreStats::from(StatsResponse::from(stats)), stats);
    }
}
