//! What is done with the contents of a walk.

use granary_castore::{BlobDigest, Node, Result, WriteBatch};

use super::{
    ImportError, ImportObserver,
    step::{Packet, Step},
};
use crate::tree_builder::TreeBuilder;

/// Takes the steps of a walk to the batch and the directories.
pub(super) struct Consumer<'a> {
    tree: TreeBuilder,
    batch: &'a mut dyn WriteBatch,
    observer: &'a dyn ImportObserver,
}

impl<'a> Consumer<'a> {
    pub(super) fn new(batch: &'a mut dyn WriteBatch, observer: &'a dyn ImportObserver) -> Self {
        Self { tree: TreeBuilder::default(), batch, observer }
    }

    /// The root of the tree.
    pub(super) fn finish(self) -> Result<Node> {
        self.tree.finish()
    }

    pub(super) fn packet(&mut self, Packet { nar, steps, .. }: &Packet) -> Result<(), ImportError> {
        // Contents up to there, and what lies before them, were given to the batch.
        let mut done = 0;
        for step in steps {
            match step {
                Step::Directory => self.tree.directory(),
                Step::Entry { name } => self.tree.entry(name.clone())?,
                Step::EndDirectory => self.tree.end_directory(self.batch)?,
                Step::Symlink { target } => self.tree.symlink(target.clone())?,
                Step::File { executable, contents } => {
                    self.tree.file(*executable, contents.len() as u64);
                    self.batch.put_literals_within(nar, done..contents.start)?;
                    done = contents.end;
                    let digest = self.batch.put_blob_within(nar, contents.clone())?;
                    self.observer.data(contents.len() as u64);
                    self.end_file(digest)?;
                }
                Step::LargeFile { executable, size_bytes } => {
                    self.tree.file(*executable, *size_bytes);
                }
                Step::Data(data) => {
                    if done < data.start {
                        self.batch.put_literals_within(nar, done..data.start)?;
                    }
                    done = data.end;
                    self.batch.write(&nar[data.clone()])?;
                    self.observer.data(data.len() as u64);
                }
                Step::EndLargeFile => {
                    let digest = self.batch.finish_blob()?;
                    self.end_file(digest)?;
                }
            }
        }
        if done < nar.len() {
            self.batch.put_literals_within(nar, done..nar.len())?;
        }
        Ok(())
    }

    fn end_file(&mut self, digest: BlobDigest) -> Result<(), ImportError> {
        self.tree.end_file(digest)?;
        self.observer.file();
        Ok(())
    }
}
