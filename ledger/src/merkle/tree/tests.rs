//! Compares with an independent implementation (the crate `tlog_tiles`, after Go's `tlog`), with
//! known answers of Certificate Transparency, and with properties of every tree.

use proptest::prelude::*;
use tlog_tiles::{HashReader, tlog};

use super::*;

fn leaf(data: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(data)
        .finalize()
        .into()
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
}

fn hash_over(of: Leaves, leaves: &[Hash]) -> Hash {
    let hashes: Vec<Hash> = of
        .subtrees()
        .into_iter()
        .map(|subtree| {
            let first = usize::try_from(subtree.index << subtree.height).unwrap();
            perfect(&leaves[first..first + (1 << subtree.height)])
        })
        .collect();
    join(&hashes)
}

fn root_of(leaves: &[Hash]) -> Hash {
    hash_over(Leaves::all(leaves.len() as u64), leaves)
}

fn proof_of(path: Vec<Leaves>, leaves: &[Hash]) -> Vec<Hash> {
    path.into_iter().map(|of| hash_over(of, leaves)).collect()
}

/// The tree of the other implementation.
struct Theirs(Vec<tlog::Hash>);

impl HashReader for Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let hash = |index: &u64| self.0[usize::try_from(*index).unwrap()];
        Ok(indexes.iter().map(hash).collect())
    }
}

fn theirs(leaves: &[Hash]) -> Theirs {
    let mut tree = Theirs(Vec::new());
    for (n, leaf) in leaves.iter().enumerate() {
        let more = tlog::stored_hashes_for_record_hash(n as u64, tlog::Hash(*leaf), &tree).unwrap();
        tree.0.extend(more);
    }
    tree
}

fn ours(hashes: Vec<tlog::Hash>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| hash.0).collect()
}

#[test]
fn roots_and_proofs_equal_those_of_an_independent_implementation() {
    let leaves = leaves(140);
    let tree = theirs(&leaves);
    for size in 1..=leaves.len() as u64 {
        let ours_of = &leaves[..usize::try_from(size).unwrap()];
        let root = root_of(ours_of);
        assert_eq!(root, tlog::tree_hash(size, &tree).unwrap().0, "{size}");
        for index in 0..size {
            let proof = proof_of(inclusion(index, size), ours_of);
            let expected = ours(tlog::prove_record(size, index, &tree).unwrap());
            assert_eq!(proof, expected, "{index} of {size}");
            let leaf = &ours_of[usize::try_from(index).unwrap()];
            assert!(is_included(leaf, index, size, &proof, &root));
        }
        for from in 1..=size {
            let proof = proof_of(consistency(from, size), ours_of);
            let expected = ours(tlog::prove_tree(size, from, &tree).unwrap());
            assert_eq!(proof, expected, "{from} to {size}");
            let old = root_of(&ours_of[..usize::try_from(from).unwrap()]);
            assert!(is_consistent((from, &old), (size, &root), &proof));
        }
    }
}

/// From the test data of Certificate Transparency's reference implementation.
#[test]
fn the_roots_of_certificate_transparency_are_computed() {
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(
        hex::encode(root_of(&[])),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let mut hasher = Hasher::default();
    for (input, root) in inputs.into_iter().zip(roots) {
        hasher.push(leaf(input));
        assert_eq!(hex::encode(hasher.root()), root);
    }
}

#[test]
fn adding_leaves_one_by_one_gives_the_same_root() {
    let leaves = leaves(600);
    let mut hasher = Hasher::default();
    assert_eq!(hasher.root(), root_of(&[]));
    for (size, leaf) in leaves.iter().enumerate() {
        hasher.push(*leaf);
        assert_eq!(hasher.root(), root_of(&leaves[..=size]));
        assert_eq!(hasher.size(), size as u64 + 1);
    }
}

#[test]
fn a_subtree_consists_of_stored_hashes_of_one_tile() {
    for size in [
        1,
        255,
        256,
        257,
        65_535,
        65_536,
        65_537,
        10_000_000,
        u64::MAX / 2,
    ] {
        for subtree in Leaves::all(size).subtrees() {
            let (_, first, count) = subtree.kept();
            assert_eq!(
                first / TILE,
                (first + count - 1) / TILE,
                "{size}: {subtree:?}"
            );
        }
    }
}

#[test]
fn the_empty_tree_is_a_prefix_of_every_tree() {
    let root = root_of(&leaves(3));
    assert!(is_consistent((0, &empty_root()), (3, &root), &[]));
    assert!(!is_consistent((0, &root), (3, &root), &[]));
    assert!(!is_consistent((0, &empty_root()), (3, &root), &[root]));
}

proptest! {
    #[test]
    fn no_other_proof_shows_that_a_leaf_is_included(
        size in 1_u64..500,
        index in 0_u64..500,
        change in 0_usize..64,
        bit in 0_u32..256,
    ) {
        let index = index % size;
        let leaves = leaves(size);
        let root = root_of(&leaves);
        let mut leaf = leaves[usize::try_from(index).unwrap()];
        let mut proof = proof_of(inclusion(index, size), &leaves);
        prop_assert!(is_included(&leaf, index, size, &proof, &root));
        prop_assert!(!is_included(&leaf, index, size, &proof, &leaf) || size == 1);
        prop_assert!(!is_included(&leaf, size, size, &proof, &root));
        let mut longer = proof.clone();
        longer.push(root);
        prop_assert!(!is_included(&leaf, index, size, &longer, &root));
        // One flipped bit, in the leaf or anywhere in the proof.
        let hashes = proof.len() + 1;
        let flipped = match change % hashes {
            0 => &mut leaf,
            n => &mut proof[n - 1],
        };
        flipped[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        prop_assert!(!is_included(&leaf, index, size, &proof, &root));
    }

    #[test]
    fn no_other_proof_shows_that_a_tree_is_a_prefix_of_another(
        from in 1_u64..500,
        to in 1_u64..500,
        change in 0_usize..64,
        bit in 0_u32..256,
    ) {
        let (from, to) = (from.min(to), from.max(to));
        let leaves = leaves(to);
        let old = root_of(&leaves[..usize::try_from(from).unwrap()]);
        let new = root_of(&leaves);
        let mut proof = proof_of(consistency(from, to), &leaves);
        prop_assert!(is_consistent((from, &old), (to, &new), &proof));
        prop_assert!(!is_consistent((to + 1, &old), (to, &new), &proof));
        if from < to {
            prop_assert!(!is_consistent((from, &new), (to, &new), &proof));
            let last = proof.len() - 1;
            let at = &mut proof[change % (last + 1)];
            at[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
            prop_assert!(!is_consistent((from, &old), (to, &new), &proof));
        }
    }

    #[test]
    fn any_proof_is_accepted_or_refused(
        index in any::<u64>(),
        size in any::<u64>(),
        proof in proptest::collection::vec(any::<Hash>(), 0..70),
        root in any::<Hash>(),
    ) {
        prop_assert!(!is_included(&root, index, size, &proof, &empty_root()));
        is_consistent((index, &root), (size, &empty_root()), &proof);
    }
}
