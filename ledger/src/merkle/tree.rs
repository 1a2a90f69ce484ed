//! The Merkle tree over the ledger, exactly as in RFC 6962, section 2.1. A leaf is the hash of an
//! event's stored envelope; its index is the event's position minus one.
//!
//! Pure. The caller reads the hashes of perfect subtrees that a proof needs.

use sha2::{Digest as _, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The number of hashes of one level that are stored and published together: a tile.
pub const TILE: u64 = 256;
/// Levels of the tree per level of tiles.
const TILE_HEIGHT: u32 = 8;

/// The hash of an inner node: SHA-256 of `0x01`, the left and the right child.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of a perfect subtree from the hashes of its 2ⁿ nodes at any level below.
///
/// # Panics
///
/// When the number of hashes is not a power of two.
pub fn perfect(hashes: &[Hash]) -> Hash {
    assert!(hashes.len().is_power_of_two());
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| node(&pair[0], &pair[1]))
            .collect();
    }
    level[0]
}

/// A perfect subtree of 2^`height` leaves: the subtree with this `index` among those of its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Levels above the leaves.
    pub height: u32,
    /// The index among the subtrees of that height.
    pub index: u64,
}

impl Subtree {
    /// The stored hashes that make up its hash: the level of tiles, the first hash of that level,
    /// and the number of hashes.
    pub fn kept(self) -> (u32, u64, u64) {
        let within = self.height % TILE_HEIGHT;
        (self.height / TILE_HEIGHT, self.index << within, 1 << within)
    }
}

/// A range of leaves, `from` included and `to` excluded. Each hash of a proof covers one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaves {
    start: u64,
    end: u64,
}

impl Leaves {
    /// All leaves of a tree.
    pub fn all(size: u64) -> Self {
        Self {
            start: 0,
            end: size,
        }
    }

    /// The perfect subtrees that make up the range, from the left. [`join`] makes its hash from
    /// their hashes.
    pub fn subtrees(self) -> Vec<Subtree> {
        let mut start = self.start;
        let mut subtrees = Vec::new();
        while start < self.end {
            let height = start.trailing_zeros().min((self.end - start).ilog2());
            subtrees.push(Subtree {
                height,
                index: start >> height,
            });
            start += 1 << height;
        }
        subtrees
    }
}

/// The hash over leaves from the hashes of [`Leaves::subtrees`].
pub fn join(hashes: &[Hash]) -> Hash {
    let joined = hashes
        .iter()
        .rev()
        .copied()
        .reduce(|right, left| node(&left, &right));
    joined.unwrap_or_else(empty_root)
}

/// The largest power of two below a number of leaves; there are at least two leaves.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The ranges that the hashes of an inclusion proof cover, from the leaf to the root (RFC 6962,
/// 2.1.1).
///
/// # Panics
///
/// When the index is not below the size.
pub fn inclusion(index: u64, size: u64) -> Vec<Leaves> {
    assert!(index < size);
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(Leaves { start: middle, end });
            end = middle;
        } else {
            path.push(Leaves { start, end: middle });
            start = middle;
        }
    }
    path.reverse();
    path
}

/// The ranges that the hashes of a consistency proof cover (RFC 6962, 2.1.2). The proof from the
/// empty tree, or to the same tree, is empty.
///
/// # Panics
///
/// When the first size is above the second.
pub fn consistency(from: u64, to: u64) -> Vec<Leaves> {
    assert!(from <= to);
    let mut path = Vec::new();
    if from == 0 || from == to {
        return path;
    }
    let (mut start, mut end) = (0, to);
    // Whether the old tree is still a left part of the new one; the verifier knows its root.
    let mut is_known = true;
    while from != end {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(Leaves { start: middle, end });
            end = middle;
        } else {
            path.push(Leaves { start, end: middle });
            start = middle;
            is_known = false;
        }
    }
    if !is_known {
        path.push(Leaves { start, end });
    }
    path.reverse();
    path
}

/// Whether a proof shows that a leaf is in a tree (RFC 9162, 2.1.3.2). Accepts any input.
pub fn is_included(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut index, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            hash = node(sibling, &hash);
            while index.is_multiple_of(2) && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether a proof shows that a tree is a prefix of another (RFC 9162, 2.1.4.2). Accepts any input.
pub fn is_consistent(
    (from, from_root): (u64, &Hash),
    (to, to_root): (u64, &Hash),
    proof: &[Hash],
) -> bool {
    if from > to {
        return false;
    }
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    if from == 0 {
        return proof.is_empty() && *from_root == empty_root();
    }
    let mut proof = proof.iter();
    let first = if from.is_power_of_two() {
        Some(from_root)
    } else {
        proof.next()
    };
    let Some(first) = first else { return false };
    let (mut index, mut last) = (from - 1, to - 1);
    while index % 2 == 1 {
        index >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            old = node(sibling, &old);
            new = node(sibling, &new);
            while index.is_multiple_of(2) && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            new = node(&new, sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && old == *from_root && new == *to_root
}

/// Computes the root over leaves as they arrive. The memory grows with the logarithm of their
/// number.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    size: u64,
    /// The hashes of the perfect subtrees so far, from the left.
    subtrees: Vec<Hash>,
}

impl Hasher {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.subtrees.pop().expect("a subtree for every one bit");
            hash = node(&left, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The number of leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves so far.
    pub fn root(&self) -> Hash {
        join(&self.subtrees)
    }
}

#[cfg(test)]
mod tests;
