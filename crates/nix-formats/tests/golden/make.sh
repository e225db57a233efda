#!/bin/sh
# Makes the golden files beside this script anew, with a new key. Run it as root with Nix 2.8.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export HOME="$work/home" NIX_CONFIG="substitute = false
build-users-group ="
store="--store $work/root"

# The tree: directories, an executable, empty things, symlinks, names in an order that a
# locale would change. Its twin has a name and a target that are not UTF-8.
tree="$work/tree"
mkdir -p "$tree/dir/sub" "$tree/empty-dir"
printf 'hello\n' >"$tree/dir/hello"
printf '#!/bin/sh\necho hi\n' >"$tree/dir/run"
chmod 755 "$tree/dir/run"
: >"$tree/empty"
printf 12345678 >"$tree/eight"
printf upper >"$tree/Z"
printf dot >"$tree/.hidden"
ln -s dir/hello "$tree/link"
ln -s /nix/store/nowhere "$tree/dir/sub/dangling"
cp -a "$tree" "$work/tree-bytes"
printf bytes >"$work/tree-bytes/$(printf 'caf\351-\377')"
ln -s "$(printf '\377\376')" "$work/tree-bytes/target"

nix-store --dump "$tree" >tree.nar
nix-store --dump "$work/tree-bytes" >tree-bytes.nar
nix-store --dump "$tree/eight" >file.nar
nix-store --dump "$tree/dir/run" >executable.nar
nix-store --dump "$tree/link" >symlink.nar

# Paths, one line each: how it was made, and the path.
run="$tree/dir/run"
{
    echo "add $(nix-store $store --add "$tree")"
    for algorithm in md5 sha1 sha256 sha512; do
        echo "fixed-$algorithm $(nix-store $store --add-fixed $algorithm "$run")"
        echo "fixed-r-$algorithm $(nix-store $store --add-fixed --recursive $algorithm "$tree")"
    done
    echo "text $(nix-instantiate $store --read-write-mode --eval -E 'builtins.toFile "note" "hello\n"' | tr -d '"')"
    echo "text-references $(nix-instantiate $store --read-write-mode --eval -E '
        builtins.toFile "referrer" (builtins.concatStringsSep "\n" [
          (builtins.toFile "note" "hello\n") (builtins.toFile "other" "other\n") ""])' | tr -d '"')"
} >paths
for algorithm in md5 sha1 sha256 sha512; do
    echo "run $algorithm $(nix-hash --flat --type $algorithm "$run")"
    echo "tree $algorithm $(nix-hash --type $algorithm "$tree")"
done >digests

# An output with a deriver, and without a content address. The builder is part of Nix.
drv=$(nix-instantiate $store -E 'derivation {
    name = "built"; system = "builtin"; builder = "builtin:buildenv";
    derivations = [ ]; manifest = builtins.toFile "manifest" "manifest\n";
}')
echo "built $(nix-store $store --realise "$drv")" >>paths

# A signed cache of three of them.
nix-store --generate-binary-cache-key golden-1 "$work/secret" public-key
cat "$work/secret" >secret-key
for what in add text-references built; do
    path=$(sed -n "s/^$what //p" paths)
    nix --extra-experimental-features nix-command copy $store --to \
        "file://$work/cache?compression=none&write-nar-listing=1&secret-key=$work/secret" "$path"
    hash=$(basename "$path" | cut -c1-32)
    cp "$work/cache/$hash.narinfo" "$what.narinfo"
    cp "$work/cache/$hash.ls" "$what.ls"
done
nix --version >nix-version
