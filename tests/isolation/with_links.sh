# Run a command where the file system has a link at its top, as clusters have: /limpet-appl, which
# leads to /limpet-pfs/appl. A plain user makes such a root in a user namespace of their own:
#
#   unshare --user --map-current-user --keep-caps --mount --pid --fork --kill-child --mount-proc \
#     bash with_links.sh FOLDER COMMAND…
#
# FOLDER is an empty one for the new root. What the real root has is in it, and below /home, /tmp
# and where the command's own files are, what is written is kept. (The root must be one mount that
# /usr lies in: Apptainer 1.4.5 takes a wrong prefix for itself where /usr is a mount of its own.)
set -euo pipefail
new=$1
shift
mount -t tmpfs none "$new"
mkdir "$new/upper" "$new/work" "$new/root"
root="$new/root"
fuse-overlayfs -o "lowerdir=/,upperdir=$new/upper,workdir=$new/work" "$root"
mkdir -p "$root/limpet-pfs/appl/project" "$root/limpet-pfs/appl/other" "$root/limpet-old"
ln -s limpet-pfs/appl "$root/limpet-appl"
echo data | tee "$root/limpet-pfs/appl/project/data" >"$root/limpet-pfs/appl/other/data"
for entry in proc dev sys run tmp home; do
  mount --rbind "/$entry" "$root/$entry"
done
cd "$root"
pivot_root . limpet-old
umount -l /limpet-old
rmdir /limpet-old
cd /limpet-appl/project
exec setpriv --ambient-caps -all --inh-caps -all -- "$@"
