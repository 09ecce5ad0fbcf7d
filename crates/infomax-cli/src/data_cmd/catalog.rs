//! The public data sets that can be fetched: where they lie, how they are checked, what may be done with them.

/// A file of a data set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// The name at the source and on disk.
    pub(super) name: &'static str,
    /// The exact size in bytes.
    pub(super) size: u64,
    /// The MD5 that the authors (or torchvision) publish: it guards against damage, not against malice.
    pub(super) md5: &'static str,
}

/// How a downloaded file becomes the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pack {
    /// It is read as it is.
    None,
    TarGz,
    Zip,
}

/// A data set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The address that the names of the files are added to.
    pub(super) base_url: &'static str,
    pub(super) files: &'static [Remote],
    pub(super) pack: Pack,
    /// What unpacking may write at most, a little above what the set holds.
    pub(super) unpacked: u64,
    /// The page of the authors.
    pub(super) source: &'static str,
    pub(super) license: &'static str,
}

/// All of them.
///
/// Sizes and checksums are those of torchvision and of the authors' pages; they were never compared with the
/// servers by our tests, which run without a network.
pub(super) const SETS: &[Set] = &[
    Set {
        name: "cifar10",
        about: "60,000 images of 32x32, 10 classes, 10,000 of them for testing",
        base_url: "https://www.cs.toronto.edu/~kriz/",
        files: &[Remote {
            name: "cifar-10-binary.tar.gz",
            size: 170_052_171,
            md5: "c32a1d4ab5d03f1284b67883e8d87530",
        }],
        pack: Pack::TarGz,
        unpacked: 200_000_000,
        source: "https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009)",
        license: "none stated; the authors ask for a citation",
    },
    Set {
        name: "cifar100",
        about: "60,000 images of 32x32, 100 classes, 10,000 of them for testing",
        base_url: "https://www.cs.toronto.edu/~kriz/",
        files: &[Remote {
            name: "cifar-100-binary.tar.gz",
            size: 168_513_733,
            md5: "03b5dce01913d631647c71ecec9e9cb8",
        }],
        pack: Pack::TarGz,
        unpacked: 200_000_000,
        source: "https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009)",
        license: "none stated; the authors ask for a citation",
    },
    Set {
        name: "stl10",
        about: "5,000 + 8,000 labeled and 100,000 unlabeled images of 96x96, 10 classes",
        base_url: "http://ai.stanford.edu/~acoates/stl10/",
        files: &[Remote {
            name: "stl10_binary.tar.gz",
            size: 2_640_397_119,
            md5: "91f7769df0f17e558f3565bffb0c7dfb",
        }],
        pack: Pack::TarGz,
        unpacked: 3_300_000_000,
        source: "https://cs.stanford.edu/~acoates/stl10/ (Coates, Ng and Lee, 2011)",
        license: "none stated; taken from ImageNet, whose images are for research without commercial use",
    },
    Set {
        name: "tiny-imagenet",
        about: "110,000 labeled images of 64x64, 200 classes, 10,000 of them for validation",
        base_url: "http://cs231n.stanford.edu/",
        files: &[Remote {
            name: "tiny-imagenet-200.zip",
            size: 248_100_043,
            md5: "90528d7ca1a48142e341f4ef8d21d0de",
        }],
        pack: Pack::Zip,
        unpacked: 600_000_000,
        source: "http://cs231n.stanford.edu/ (Le and Yang, 2015)",
        license: "none stated; taken from ImageNet, whose images are for research without commercial use",
    },
    Set {
        name: "mnist",
        about: "70,000 gray images of 28x28 of handwritten digits, 10,000 of them for testing",
        base_url: "https://ossci-datasets.s3.amazonaws.com/mnist/",
        files: &[
            Remote {
                name: "train-images-idx3-ubyte.gz",
                size: 9_912_422,
                md5: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            },
            Remote {
                name: "train-labels-idx1-ubyte.gz",
                size: 28_881,
                md5: "d53e105ee54ea40749a09fcbcd1e9432",
            },
            Remote {
                name: "t10k-images-idx3-ubyte.gz",
                size: 1_648_877,
                md5: "9fb629c4189551a2d022fa330f9573f3",
            },
            Remote {
                name: "t10k-labels-idx1-ubyte.gz",
                size: 4_542,
                md5: "ec29112dd5afa0611ce80d1b7f02629c",
            },
        ],
        pack: Pack::None,
        unpacked: 0,
        source: "http://yann.lecun.com/exdb/mnist/ (LeCun, Cortes and Burges); the mirror of PyTorch",
        license: "CC BY-SA 3.0",
    },
    Set {
        name: "fashion-mnist",
        about: "70,000 gray images of 28x28 of clothes, 10,000 of them for testing",
        base_url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files: &[
            Remote {
                name: "train-images-idx3-ubyte.gz",
                size: 26_421_880,
                md5: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            },
            Remote {
                name: "train-labels-idx1-ubyte.gz",
                size: 29_515,
                md5: "25c81989df183df01b3e8a0aad5dffbe",
            },
            Remote {
                name: "t10k-images-idx3-ubyte.gz",
                size: 4_422_102,
                md5: "bef4ecab320f06d8554ea6380940ec79",
            },
            Remote {
                name: "t10k-labels-idx1-ubyte.gz",
                size: 5_148,
                md5: "bb300cfdad3c16e7a12a480ee83cd310",
            },
        ],
        pack: Pack::None,
        unpacked: 0,
        source: "https://github.com/zalandoresearch/fashion-mnist (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747)",
        license: "MIT",
    },
];

#[cfg(test)]
mod tests {
    use super::SETS;
    use std::collections::BTreeSet;

    #[test]
    fn entries_are_complete() {
        let names: BTreeSet<_> = SETS.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), SETS.len());
        for set in SETS {
            assert!(set.base_url.ends_with('/') && !set.license.is_empty() && !set.files.is_empty());
            for file in set.files {
                assert!(file.md5.len() == 32 && file.md5.bytes().all(|b| b.is_ascii_hexdigit()));
                assert!(file.size > 0 && !file.name.contains('/'));
            }
        }
    }
}
