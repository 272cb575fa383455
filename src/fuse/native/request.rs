//! From the bytes of a request to what is asked. Pure; nothing that the device could say panics or allocates.

use super::abi::{
    BatchForgetIn, CreateIn, FallocateIn, FlushIn, ForgetOne, GetattrIn, GetxattrIn, InHeader, InitIn, IoctlIn, LkIn,
    LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, SetattrIn, SetxattrIn, WriteIn,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// What the kernel asks.
#[derive(Debug)]
pub(super) enum Op<'a> {
    Lookup(&'a [u8]),
    Forget(u64),
    BatchForget(&'a [ForgetOne]),
    Getattr(GetattrIn),
    Setattr(Box<SetattrIn>),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod(MknodIn, &'a [u8]),
    Mkdir(MkdirIn, &'a [u8]),
    Unlink(&'a [u8]),
    Rmdir(&'a [u8]),
    Rename {
        new_dir: u64,
        flags: u32,
        name: &'a [u8],
        new_name: &'a [u8],
    },
    Link {
        node: u64,
        name: &'a [u8],
    },
    Open(OpenIn),
    Opendir,
    Read(ReadIn),
    Write(WriteIn, &'a [u8]),
    Statfs,
    Release(ReleaseIn),
    Releasedir,
    Fsync,
    Fsyncdir,
    Setxattr {
        flags: i32,
        name: &'a [u8],
        value: &'a [u8],
    },
    Getxattr {
        size: u32,
        name: &'a [u8],
    },
    Listxattr {
        size: u32,
    },
    Removexattr(&'a [u8]),
    Flush(FlushIn),
    Getlk(LkIn),
    /// SETLK, or SETLKW which waits.
    Setlk(LkIn, bool),
    Init {
        version: InitIn,
        flags2: u32,
    },
    Readdir(ReadIn),
    Readdirplus(ReadIn),
    Create(CreateIn, &'a [u8]),
    /// Of the request with this number.
    Interrupt(u64),
    Destroy,
    Ioctl(IoctlIn, &'a [u8]),
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    Syncfs,
    /// One that we do not know or do not offer.
    Other,
}

/// A request shorter than its kind needs, or with a name that does not end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The rest of a message, taken piece by piece.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(name)
    }

    fn bytes(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(len as usize).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// Header and body of the message in `bytes`, whose first part says how long it is.
pub(super) fn parse(bytes: &[u8]) -> Result<(InHeader, Op<'_>), Malformed> {
    let (header, _) = InHeader::read_from_prefix(bytes).map_err(|_| Malformed)?;
    let body = bytes.get(size_of::<InHeader>()..header.len as usize).ok_or(Malformed)?;
    Ok((header, operation(header.opcode, Body(body))?))
}

/// Header of a message whose body is malformed: for the answer.
pub(super) fn header(bytes: &[u8]) -> Option<InHeader> {
    InHeader::read_from_prefix(bytes).ok().map(|(header, _)| header)
}

fn operation(opcode: u32, mut body: Body<'_>) -> Result<Op<'_>, Malformed> {
    Ok(match opcode {
        1 => Op::Lookup(body.name()?),
        2 => Op::Forget(body.take()?),
        3 => Op::Getattr(body.take()?),
        4 => Op::Setattr(Box::new(body.take()?)),
        5 => Op::Readlink,
        6 => Op::Symlink { name: body.name()?, target: body.name()? },
        8 => Op::Mknod(body.take()?, body.name()?),
        9 => Op::Mkdir(body.take()?, body.name()?),
        10 => Op::Unlink(body.name()?),
        11 => Op::Rmdir(body.name()?),
        12 => Op::Rename { new_dir: body.take()?, flags: 0, name: body.name()?, new_name: body.name()? },
        13 => Op::Link { node: body.take()?, name: body.name()? },
        14 => Op::Open(body.take()?),
        15 => Op::Read(body.take()?),
        16 => {
            let write: WriteIn = body.take()?;
            Op::Write(write, body.bytes(write.size)?)
        }
        17 => Op::Statfs,
        18 => Op::Release(body.take()?),
        20 => Op::Fsync,
        21 => {
            let set: SetxattrIn = body.take()?;
            Op::Setxattr { flags: set.flags, name: body.name()?, value: body.bytes(set.size)? }
        }
        22 => Op::Getxattr { size: body.take::<GetxattrIn>()?.size, name: body.name()? },
        23 => Op::Listxattr { size: body.take::<GetxattrIn>()?.size },
        24 => Op::Removexattr(body.name()?),
        25 => Op::Flush(body.take()?),
        26 => {
            let version: InitIn = body.take()?;
            // Kernels before 5.17 end here.
            Op::Init { version, flags2: body.take().unwrap_or(0) }
        }
        27 => Op::Opendir,
        28 => Op::Readdir(body.take()?),
        29 => Op::Releasedir,
        30 => Op::Fsyncdir,
        31 => Op::Getlk(body.take()?),
        32 => Op::Setlk(body.take()?, false),
        33 => Op::Setlk(body.take()?, true),
        35 => Op::Create(body.take()?, body.name()?),
        36 => Op::Interrupt(body.take()?),
        38 => Op::Destroy,
        39 => {
            let ioctl: IoctlIn = body.take()?;
            Op::Ioctl(ioctl, body.bytes(ioctl.in_size)?)
        }
        42 => {
            let batch: BatchForgetIn = body.take()?;
            let (list, _) =
                <[ForgetOne]>::ref_from_prefix_with_elems(body.0, batch.count as usize).map_err(|_| Malformed)?;
            Op::BatchForget(list)
        }
        43 => Op::Fallocate(body.take()?),
        44 => Op::Readdirplus(body.take()?),
        45 => {
            let rename: Rename2In = body.take()?;
            Op::Rename { new_dir: rename.new_dir, flags: rename.flags, name: body.name()?, new_name: body.name()? }
        }
        46 => Op::Lseek(body.take()?),
        50 => Op::Syncfs,
        _ => Op::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn message(opcode: u32, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let len = (size_of::<InHeader>() + body.len()) as u32;
        let header = InHeader { len, opcode, unique: 7, node: 9, uid: 1, gid: 2, pid: 3, ..InHeader::default() };
        [header.as_bytes(), &body].concat()
    }

    #[test]
    fn names_and_numbers_arrive() {
        let bytes = message(45, &[Rename2In { new_dir: 5, flags: 2, padding: 0 }.as_bytes(), b"a\0bc\0"]);
        let (header, op) = parse(&bytes).unwrap();
        assert_eq!((header.unique, header.node, header.uid, header.gid, header.pid), (7, 9, 1, 2, 3));
        assert!(matches!(op, Op::Rename { new_dir: 5, flags: 2, name: b"a", new_name: b"bc" }));

        let write = WriteIn { offset: 10, size: 3, ..WriteIn::default() };
        let bytes = message(16, &[write.as_bytes(), b"xyz"]);
        assert!(matches!(parse(&bytes).unwrap().1, Op::Write(w, b"xyz") if w.offset == 10));

        let bytes = message(21, &[SetxattrIn { size: 2, flags: 1 }.as_bytes(), b"user.n\0", b"v\0"]);
        assert!(matches!(parse(&bytes).unwrap().1, Op::Setxattr { flags: 1, name: b"user.n", value: b"v\0" }));
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        let write = WriteIn { size: 4, ..WriteIn::default() };
        assert!(parse(&message(16, &[write.as_bytes(), b"xyz"])).is_err());
        assert!(parse(&message(1, &[b"no end"])).is_err());
        assert!(parse(&message(42, &[BatchForgetIn { count: u32::MAX, padding: 0 }.as_bytes()])).is_err());
        let whole = message(12, &[&5u64.to_ne_bytes(), b"a\0b\0"]);
        assert!(parse(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(opcode in 0u32..60, body in proptest::collection::vec(0u8.., 0..200), cut in 0usize..300) {
            let bytes = message(opcode, &[&body]);
            let _ = parse(&bytes[..cut.min(bytes.len())]);
            let _ = parse(&bytes);
        }
    }
}
