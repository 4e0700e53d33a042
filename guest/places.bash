# places: where guest/fetch, mkinitramfs and mkimage have their things: in the build folder; as installed,
# beside them and in /var/cache/eagre. Source it, with the script's folder in $here.
if [ -x "$here/runner" ]; then
	runner=$here/runner cached=/var/cache/eagre
else
	runner=$here/../build/guest/runner cached=$here/../build
fi
